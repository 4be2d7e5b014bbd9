"""How much of the machine training uses: its useful arithmetic beside the machine's own matrix products.

    python -m benchmarks.throughput [step] [shares] [--data data]

`step` times the trainer's own update, forward, backward, clip and AdamW, in turn with large square matrix products in
the same process; `shares` says where the time of a whole training goes.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import found_by_children
from benchmarks.report import table, write_section

if TYPE_CHECKING:
    from charlm.config import Precision


SHAPES = [(batch_size, 64) for batch_size in (16, 8, 32, 64)] + [(16, seq_len) for seq_len in (32, 128)]
"""Streams, and tokens of each in an update; the first are the defaults."""

MODES = {"1 thread": (1, 1), "2 threads": (2, 1), "2 processes": (1, 2)}
"""Threads of a process, and processes."""

SQUARES = (1024, 2048, 3072)
"""Sides of the matrices."""

PRECISIONS: tuple["Precision", ...] = ("fp32", "bf16")

STRETCH = 0.3
"""Seconds for which each thing is timed at a time; the best stretch counts."""

TOKENS = 200_000
"""In the text that is learnt: speed does not depend on it."""

STEP_TEXT = f"""\
 An update is the trainer's own: batch, forward, backward, clip and AdamW; by default of {SHAPES[0][0]} streams x \
{SHAPES[0][1]} tokens. Its useful arithmetic is 6 operations for each weight and token. The share is of what the \
machine does in large square products of the same kind with as many threads, timed in turn with the updates in the \
same process; in brackets tokens learnt a second. Two processes have one thread and the whole batch each, and average \
their gradients; their share is of the products with two threads.

"""


def best_seconds(work: Callable[[], object], calls: int = 2) -> float:
    """The time of one call: the least of some, after one that is not timed."""
    work()
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def product_gflops(precision: "Precision") -> float:
    """The machine's GFLOP/s in matrix products."""
    import torch

    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    best = 0.0
    for side in SQUARES:
        square = torch.randn(side, side).to(kind)
        best = max(best, 2 * side**3 / best_seconds(partial(torch.matmul, square, square)) / 1e9)
    return best


def new_trainer(hidden: int, shape: tuple[int, int], precision: "Precision", folder: Path, workers: Any) -> Any:  # noqa: ANN401
    """A training like any other, of a text of random characters."""
    import numpy as np
    import torch

    from charlm.config import ModelConfig, TrainConfig
    from charlm.engine.runs import Run
    from charlm.text.tokenizer import CharTokenizer
    from charlm.training.dataset import Dataset
    from charlm.training.network import LanguageModel
    from charlm.training.throughput import Machine
    from charlm.training.trainer import Trainer

    tokenizer = CharTokenizer("\n" + "".join(map(chr, range(33, 97))))
    ids = np.random.default_rng(0).integers(1, tokenizer.vocab_size, TOKENS).astype(np.uint16)
    torch.manual_seed(0)
    model = LanguageModel(ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=hidden))
    config = TrainConfig(steps=10**6, batch_size=shape[0], seq_len=shape[1], precision=precision)
    dataset = Dataset(tokenizer=tokenizer, train_ids=ids, val_ids=ids[:0])
    return Trainer(model, dataset, config, run=Run(folder), metadata={}, machine=Machine(workers=workers))


def update_seconds(trainer: Any, count: int) -> float:  # noqa: ANN401 - its class needs torch
    """The time of one of the trainer's updates, over so many."""
    began = time.perf_counter()
    for _ in range(count):
        trainer._update()  # what `Trainer.train` does between looking at the clock
    return (time.perf_counter() - began) / count


def measure(hidden: int, threads: int, stretches: int) -> dict[str, float]:
    """GFLOP/s of products and of updates in this process, in turn; the best of the stretches.

    A process of several takes part in averaging the gradients, and its figures are its own.
    """
    import torch

    from charlm.training.distributed import joined_workers
    from charlm.training.throughput import can_train_in_bf16

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    precisions = PRECISIONS if can_train_in_bf16(torch.device("cpu")) else PRECISIONS[:1]
    found: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder, joined_workers(torch.device("cpu")) as workers:
        trainers, counts = {}, {}
        for precision in precisions:
            for shape in SHAPES:
                key = f"{precision} {shape[0]} x {shape[1]}"
                trainers[key] = new_trainer(hidden, shape, precision, Path(folder), workers)
                trainers[key].model.train()
                update_seconds(trainers[key], 2)
                seconds = workers.all_reduce_max([update_seconds(trainers[key], 2)], torch.device("cpu"))[0]
                counts[key] = max(2, round(STRETCH / seconds))  # the same in all processes
        model = next(iter(trainers.values())).model
        weights = sum(weight.numel() for weight in model.parameters()) - model.embedding.weight.numel()
        for _ in range(stretches):
            for precision in precisions:
                found[precision] = max(found[precision], product_gflops(precision))
            for (key, trainer), shape in zip(trainers.items(), SHAPES * len(precisions), strict=True):
                gflop = 6 * weights * shape[0] * shape[1] / 1e9
                found[key] = max(found[key], gflop / update_seconds(trainer, counts[key]))
        return dict(found) | {"weights": weights}


def in_processes(hidden: int, mode: str, stretches: int) -> dict[str, float]:
    """Measure in processes of their own; the figures of several are added up."""
    threads, count = MODES[mode]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "benchmarks.throughput", "--hidden", str(hidden)]
    command += ["--measure", str(threads), "--stretches", str(stretches)]
    meeting = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": str(threads),
    }
    processes = [
        subprocess.Popen(command, env={**os.environ, **meeting, "RANK": str(rank)}, stdout=subprocess.PIPE)
        for rank in range(count)
    ]
    answers = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit(f"measuring with {mode} failed")
    parts = [json.loads(answer) for answer in answers]
    return {key: sum(part[key] for part in parts) for key in parts[0]} | {"weights": parts[0]["weights"]}


def step(given: argparse.Namespace) -> str:
    """The update's arithmetic beside the products', by shape and threads."""
    best: dict[tuple[str, str], float] = defaultdict(float)
    for number in range(given.rounds):
        for mode in MODES:
            print(f"round {number + 1} of {given.rounds}: {mode}", file=sys.stderr)
            for key, value in in_processes(given.hidden, mode, given.stretches).items():
                best[mode, key] = max(best[mode, key], value)
    weights = best["1 thread", "weights"]
    kinds = [kind for kind in PRECISIONS if ("1 thread", kind) in best]
    peaks = [[f"product, {kind}", *(f"{best[mode, kind]:,.0f} GFLOP/s" for mode in MODES)] for kind in kinds]
    rows = []
    for kind in kinds:
        for batch_size, seq_len in SHAPES:
            cells = []
            for mode in MODES:
                gflops = best[mode, f"{kind} {batch_size} x {seq_len}"]
                tokens = gflops * 1e9 / 6 / weights
                peak = best["2 threads" if mode == "2 processes" else mode, kind]
                cells.append(f"{gflops / peak:.0%} ({tokens:,.0f}/s)")
            rows.append([f"update, {kind}, {batch_size} x {seq_len}", *cells])
    head = f"LSTM of one layer of {given.hidden} units, {weights:,.0f} weights without the embedding; "
    return f"{head}{os.cpu_count()} cores.{STEP_TEXT}{table(['', *MODES], peaks + rows)}"


def watch_training(text: Path, minutes: float) -> dict[str, float]:
    """Run `charlm train` in this process, and add up the seconds that its parts take."""
    began = time.perf_counter()
    from charlm.cli import main as charlm
    from charlm.cli.progress import ProgressView
    from charlm.engine.runs import Run
    from charlm.training import checkpoint_writer, divergence, trainer, validation

    spent: dict[str, float] = defaultdict(float)

    def watch(owner: object, name: str, part: str) -> None:
        work = getattr(owner, name)

        def timed(*arguments: object, **named: object) -> object:
            started = time.perf_counter()
            if part == "updates" and part not in spent:
                spent["before the first update"] = started - began - sum(spent.values())
            try:
                return work(*arguments, **named)
            finally:
                spent[part] += time.perf_counter() - started

        setattr(owner, name, timed)

    watch(trainer.Trainer, "_update", "updates")
    watch(validation, "validation_loss", "validation")
    watch(checkpoint_writer, "save_checkpoint", "saving models")
    watch(divergence.DivergenceGuard, "keep_snapshot", "copies in memory, to go back to")
    watch(Run, "append_log", "log")
    watch(ProgressView, "__call__", "progress line")
    try:
        charlm(["train", str(text), "--minutes", f"{minutes:g}", "--name", "run"])
    except SystemExit as end:
        if end.code:
            raise
    return dict(spent) | {"all": time.perf_counter() - began}


def shares(given: argparse.Namespace) -> str:
    """Where the time of a whole training goes."""
    text = (given.data / "tinyshakespeare.txt").resolve()
    command = [sys.executable, "-m", "benchmarks.throughput", "--watch", str(text), "--minutes", f"{given.minutes:g}"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    spent: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    whole = spent.pop("all")
    spent["the rest"] = whole - sum(spent.values())
    rows = [[part, f"{seconds:.2f}", f"{seconds / whole:.1%}"] for part, seconds in spent.items()]
    return (
        f"`charlm train tinyshakespeare.txt --minutes {given.minutes:g}`, {whole:.1f} s in all; saving and the summary "
        "of the end come after the last update. Loading, reading the text and choosing the arithmetic are what comes "
        "before the first.\n\n" + table(["part", "seconds", "share"], rows)
    )


PARTS = {"step": step, "shares": shares}


def main() -> None:
    """Measure, print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="|".join(PARTS), help="default: both")
    parser.add_argument("--hidden", type=int, default=512, help="units of the layer")
    parser.add_argument("--rounds", type=int, default=3, help="of all the ways to use threads")
    parser.add_argument("--stretches", type=int, default=3, help="of each thing in a round")
    parser.add_argument("--minutes", type=float, default=1.0, help="of the training whose time is looked at")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of tinyshakespeare.txt")
    parser.add_argument("--measure", type=int, metavar="THREADS", help=argparse.SUPPRESS)
    parser.add_argument("--watch", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.hidden, given.measure, given.stretches)))
        return
    if given.watch:
        print(json.dumps(watch_training(given.watch, given.minutes)))
        return
    if unknown := set(given.parts) - PARTS.keys():
        parser.error(f"no part {', '.join(unknown)}")
    parts = given.parts or list(PARTS)
    if "shares" in parts and not (given.data / "tinyshakespeare.txt").is_file():
        sys.exit(f"{given.data / 'tinyshakespeare.txt'} is missing: give the folder of the data with --data")
    found_by_children()
    body = "\n\n".join(PARTS[part](given) for part in parts)
    write_section("throughput", "How much of the machine training uses", body, packages=("torch", "numpy"))


if __name__ == "__main__":
    main()
