"""Training speed as a share of the machine's speed in matrix products, and where the time of a training goes.

    python -m benchmarks.throughput [step] [shares] [--data data]

`step` times whole updates of the trainer (batch, forward, backward, gradient clipping and AdamW). In the same process,
and in turn with them, it times large square matrix products. `shares` measures the parts of a whole training.
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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import add_project_to_pythonpath
from benchmarks.report import table, write_section
from benchmarks.timing import best_seconds

if TYPE_CHECKING:
    from charlm.config import Precision


SHAPES = [(batch_size, 64) for batch_size in (16, 8, 32, 64)] + [(16, seq_len) for seq_len in (32, 128)]
"""Batch size and sequence length of the updates to time. The first pair is the default of charlm."""

MODES = {"1 thread": (1, 1), "2 threads": (2, 1), "2 processes": (1, 2)}
"""Number of threads per process, and number of processes."""

SQUARE_SIZES = (1024, 2048, 3072)
"""Numbers of rows of the square matrices."""

PRECISIONS: tuple["Precision", ...] = ("fp32", "bf16")

STRETCH_SECONDS = 0.3
"""Approximate time of a stretch of updates that are timed together. The best stretch counts."""

NUM_TOKENS = 200_000
"""Length of the training text in tokens. Speed does not depend on it."""

STEP_TEXT = f"""\
 An update is one of the trainer: batch, forward, backward, gradient clipping and AdamW; by default with \
{SHAPES[0][0]} streams x {SHAPES[0][1]} tokens. Its arithmetic is counted as 6 operations per weight and token. The \
percentage is this arithmetic per second, as a share of large square matrix products of the same precision with the \
same number of threads. Products and updates are timed in turn in the same process. In brackets: tokens per second. \
With two processes, each has one thread and a whole batch, and they average their gradients; their share is that of \
the products with two threads.

"""


def product_gflops(precision: "Precision") -> float:
    """Return the speed of large square matrix products in GFLOP/s."""
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    best = 0.0
    for size in SQUARE_SIZES:
        square = torch.randn(size, size).to(dtype)
        seconds = best_seconds(partial(torch.matmul, square, square), 2, warm_up=True)
        best = max(best, 2 * size**3 / seconds / 1e9)
    return best


def new_trainer(hidden: int, shape: tuple[int, int], precision: "Precision", folder: Path, workers: Any) -> Any:  # noqa: ANN401
    """Return a trainer with a text of random characters.

    Args:
        hidden: Number of units of the LSTM layer.
        shape: Batch size and sequence length.
        precision: Number format of matrix products.
        folder: Folder of the run.
        workers: Processes of a distributed training.
    """
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
    ids = np.random.default_rng(0).integers(1, tokenizer.vocab_size, NUM_TOKENS).astype(np.uint16)
    torch.manual_seed(0)
    model = LanguageModel(ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=hidden))
    config = TrainConfig(steps=10**6, batch_size=shape[0], seq_len=shape[1], precision=precision)
    dataset = Dataset(tokenizer=tokenizer, train_ids=ids, val_ids=ids[:0])
    return Trainer(model, dataset, config, run=Run(folder), metadata={}, machine=Machine(workers=workers))


def update_seconds(trainer: Any, count: int) -> float:  # noqa: ANN401 - its class needs torch
    """Return the mean time of an update over `count` updates."""
    start = time.perf_counter()
    for _ in range(count):
        trainer.update()
    return (time.perf_counter() - start) / count


def measure(hidden: int, threads: int, stretches: int) -> dict[str, float]:
    """Measure products and updates in this process, in turn, and return the best of all stretches.

    If this is one of several processes, its updates include averaging the gradients with the others.

    Args:
        hidden: Number of units of the LSTM layer.
        threads: Number of threads.
        stretches: Number of stretches per figure.

    Returns:
        Speeds in GFLOP/s, for products by precision and for updates by precision and shape; and the number of weights.
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
                counts[key] = max(2, round(STRETCH_SECONDS / seconds))  # the same in all processes
        model = next(iter(trainers.values())).model
        weights = sum(weight.numel() for weight in model.parameters()) - model.embedding.weight.numel()
        for _ in range(stretches):
            for precision in precisions:
                found[precision] = max(found[precision], product_gflops(precision))
            for (key, trainer), shape in zip(trainers.items(), SHAPES * len(precisions), strict=True):
                gflop = 6 * weights * shape[0] * shape[1] / 1e9
                found[key] = max(found[key], gflop / update_seconds(trainer, counts[key]))
        return dict(found) | {"weights": weights}


def measure_in_processes(hidden: int, mode: str, stretches: int) -> dict[str, float]:
    """Call `measure` in new processes, as many as the mode has, and return the sums of their speeds."""
    threads, count = MODES[mode]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "benchmarks.throughput", "--hidden", str(hidden)]
    command += ["--measure", str(threads), "--stretches", str(stretches)]
    group = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": str(threads),
    }
    processes = [
        subprocess.Popen(command, env={**os.environ, **group, "RANK": str(rank)}, stdout=subprocess.PIPE)
        for rank in range(count)
    ]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit(f"the measurement with {mode} failed")
    parts = [json.loads(output) for output in outputs]
    return {key: sum(part[key] for part in parts) for key in parts[0]} | {"weights": parts[0]["weights"]}


def step(args: argparse.Namespace) -> str:
    """Measure products and updates with all shapes and numbers of threads; return the text of the result."""
    best: dict[tuple[str, str], float] = defaultdict(float)
    for number in range(args.rounds):
        for mode in MODES:
            print(f"round {number + 1} of {args.rounds}: {mode}", file=sys.stderr)
            for key, value in measure_in_processes(args.hidden, mode, args.stretches).items():
                best[mode, key] = max(best[mode, key], value)
    weights = best["1 thread", "weights"]
    precisions = [precision for precision in PRECISIONS if ("1 thread", precision) in best]
    rows = [
        [f"product, {precision}", *(f"{best[mode, precision]:,.0f} GFLOP/s" for mode in MODES)]
        for precision in precisions
    ]
    for precision in precisions:
        for batch_size, seq_len in SHAPES:
            key = f"{precision} {batch_size} x {seq_len}"
            cells = [update_cell(best, mode, precision, best[mode, key]) for mode in MODES]
            rows.append([f"update, {precision}, {batch_size} x {seq_len}", *cells])
    head = f"LSTM of one layer of {args.hidden} units, {weights:,.0f} weights without the embedding; "
    return f"{head}{os.cpu_count()} cores.{STEP_TEXT}{table(['', *MODES], rows)}"


def update_cell(best: dict[tuple[str, str], float], mode: str, precision: str, gflops: float) -> str:
    """Return the share of the speed of products and the tokens per second, for an update with this speed."""
    product = best["2 threads" if mode == "2 processes" else mode, precision]
    tokens = gflops * 1e9 / 6 / best["1 thread", "weights"]
    return f"{gflops / product:.0%} ({tokens:,.0f}/s)"


def watch_training(text: Path, minutes: float) -> dict[str, float]:
    """Run `charlm train` in this process, and return the seconds that its parts took."""
    start = time.perf_counter()
    from charlm.cli import main as charlm
    from charlm.cli.progress import ProgressView
    from charlm.engine.runs import Run
    from charlm.training import checkpoint_writer, divergence, trainer, validation

    spent: dict[str, float] = defaultdict(float)

    def watch(owner: object, name: str, part: str) -> None:
        function = getattr(owner, name)

        def timed(*arguments: object, **named: object) -> object:
            started = time.perf_counter()
            if part == "updates" and part not in spent:
                spent["before the first update"] = started - start - sum(spent.values())
            try:
                return function(*arguments, **named)
            finally:
                spent[part] += time.perf_counter() - started

        setattr(owner, name, timed)

    watch(trainer.Trainer, "update", "updates")
    watch(validation, "validation_nats", "validation")
    watch(checkpoint_writer, "save_checkpoint", "saving models")
    watch(divergence.DivergenceGuard, "keep_snapshot", "copies in memory, to go back to")
    watch(Run, "append_log", "log")
    watch(ProgressView, "__call__", "progress line")
    try:
        charlm(["train", str(text), "--minutes", f"{minutes:g}", "--name", "run"])
    except SystemExit as end:
        if end.code:
            raise
    return dict(spent) | {"all": time.perf_counter() - start}


def shares(args: argparse.Namespace) -> str:
    """Measure the parts of a whole training; return the text of the result."""
    text = (args.data / "tinyshakespeare.txt").resolve()
    command = [sys.executable, "-m", "benchmarks.throughput", "--watch", str(text), "--minutes", f"{args.minutes:g}"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    spent: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    whole = spent.pop("all")
    spent["other"] = whole - sum(spent.values())
    rows = [[part, f"{seconds:.2f}", f"{seconds / whole:.1%}"] for part, seconds in spent.items()]
    return (
        f"`charlm train tinyshakespeare.txt --minutes {args.minutes:g}` took {whole:.1f} s. Before the first update it "
        "imports modules, reads the text and chooses the number format. After the last update it saves the model and "
        "prints a summary.\n\n" + table(["part", "seconds", "share"], rows)
    )


PARTS = {"step": step, "shares": shares}


def main() -> None:
    """Run the parts that were asked for, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="|".join(PARTS), help="parts to run (default: both)")
    parser.add_argument("--hidden", type=int, default=512, help="number of units of the LSTM layer (default: 512)")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds of all modes (default: 3)")
    parser.add_argument("--stretches", type=int, default=3, help="stretches per figure and round (default: 3)")
    parser.add_argument("--minutes", type=float, default=1.0, help="training time for `shares` (default: 1)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with tinyshakespeare.txt")
    parser.add_argument("--measure", type=int, metavar="THREADS", help=argparse.SUPPRESS)
    parser.add_argument("--watch", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.hidden, args.measure, args.stretches)))
        return
    if args.watch:
        print(json.dumps(watch_training(args.watch, args.minutes)))
        return
    if unknown := set(args.parts) - PARTS.keys():
        parser.error(f"no part {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    parts = args.parts or list(PARTS)
    text = args.data / "tinyshakespeare.txt"
    if "shares" in parts and not text.is_file():
        sys.exit(f"{text} is missing: set --data")
    add_project_to_pythonpath()
    body = "\n\n".join(PARTS[part](args) for part in parts)
    write_section("throughput", "Training speed and matrix products", body, packages=("torch", "numpy"))


if __name__ == "__main__":
    main()
