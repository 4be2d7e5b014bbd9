"""The engine beside PyTorch, beside bare NumPy, and beside itself: speed, start-up and memory, as ratios.

    python -m benchmarks.engine [--rounds 5]

How many threads NumPy has is settled when it is imported: so each thing is measured in a process of its own, with
one thread and with two (`--threads`), in rounds that alternate, and the best round counts. The models are untrained:
speed does not depend on the weights.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.report import table, write_section

CHARS = "".join(map(chr, range(32, 96))) + "\n"
LINES, LINE_CHARS, ALONE = 20_000, 60, 400
ROWS = 64
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def best_us(run: Callable[[], object], seconds: float = 0.5) -> float:
    """The time of one call in microseconds: the best of ten short stretches."""
    run()
    started = time.perf_counter()
    run()
    count = max(1, int(seconds / 10 / (time.perf_counter() - started)))
    times = []
    for _ in range(10):
        started = time.perf_counter()
        for _ in range(count):
            run()
        times.append((time.perf_counter() - started) / count)
    return min(times) * 1e6


def make_model(path: Path, **shape: int) -> Path:
    """An untrained model's file."""
    import torch

    from charlm.config import ModelConfig
    from charlm.engine.checkpoint import Checkpoint, save_checkpoint
    from charlm.text.tokenizer import CharTokenizer
    from charlm.training.network import LanguageModel

    torch.manual_seed(0)
    tokenizer = CharTokenizer(CHARS)
    config = ModelConfig.pick({**shape, "vocab_size": tokenizer.vocab_size})
    tensors = LanguageModel(config).to_tensors()
    save_checkpoint(path, Checkpoint(config=config, tokenizer=tokenizer, tensors=tensors))
    return path


def measure_engine(path: Path) -> dict[str, float]:
    """A token of one stream and of 64, read, and read, drawn and written out."""
    import numpy as np

    from charlm.config import SampleConfig
    from charlm.engine.rnn import RecurrentNetwork, Stepper
    from charlm.engine.sampler import Sampler

    network = RecurrentNetwork.load(path)
    found = {}
    for rows in (1, ROWS):
        stepper, ids = Stepper(network, network.zero_state(rows)), np.arange(rows) % 60 + 1
        found[f"read {rows}"] = best_us(lambda stepper=stepper, ids=ids: network.logits(stepper.step(ids)))
        stream = Sampler(network=network, config=SampleConfig(length=-1, seed=1, count=rows)).stream()
        found[f"write {rows}"] = best_us(lambda stream=stream: next(stream))
    return found


def measure_bare(path: Path) -> dict[str, float]:
    """Products of one vector and of 64 with matrices of the same bytes, the faster way round, and nothing else."""
    import numpy as np

    from charlm.engine.rnn import RecurrentNetwork

    network = RecurrentNetwork.load(path)
    matrices = [network.layers[0].recurrent, *(layer.joined for layer in network.layers[1:]), network._decoder]
    turned = [np.ascontiguousarray(matrix.T) for matrix in matrices]

    def products_us(factors: list[tuple[np.ndarray, np.ndarray]]) -> float:
        outputs = [np.empty((left.shape[0], right.shape[1]), dtype=np.float32) for left, right in factors]

        def multiply() -> None:
            for (left, right), output in zip(factors, outputs, strict=True):
                np.dot(left, right, out=output)

        return best_us(multiply)

    found: dict[str, float] = {"bytes": sum(matrix.nbytes for matrix in matrices)}
    for rows in (1, ROWS):
        vectors = [np.full((rows, matrix.shape[1]), 0.1, dtype=np.float32) for matrix in matrices]
        columns = [np.ascontiguousarray(vector.T) for vector in vectors]
        ways = (zip(matrices, columns, strict=True), zip(vectors, turned, strict=True))
        found[f"multiply {rows}"] = min(products_us(list(way)) for way in ways)
    return found


def measure_torch(path: Path) -> dict[str, float]:
    """A token of one stream with PyTorch: as it comes, without oneDNN, with LSTMCell, and by hand."""
    import torch
    from torch import nn

    from charlm.engine.checkpoint import load_checkpoint
    from charlm.training.network import LanguageModel

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.set_flush_denormal(True)
    checkpoint = load_checkpoint(path)
    config = checkpoint.config
    model = LanguageModel(config).eval()
    model.load_tensors(checkpoint.tensors)
    lstm = nn.LSTM(config.embedding_dim, config.hidden_size, config.num_layers, batch_first=True).eval()
    cells = []
    for index, layer in enumerate(model.core.layers):
        weights = {name.removesuffix("_l0"): value for name, value in layer.state_dict().items()}
        cells.append(nn.LSTMCell(layer.input_size, layer.hidden_size).eval())
        cells[index].load_state_dict(weights)
        lstm.load_state_dict({f"{name}_l{index}": value for name, value in weights.items()}, strict=False)
    token = torch.tensor([[5]])
    state = model.core.zero_state(1)
    pairs = [(state[0][index], state[1][index]) for index in range(config.num_layers)]
    fused = [
        (torch.cat([cell.weight_ih, cell.weight_hh], 1).T.contiguous(), cell.bias_ih + cell.bias_hh) for cell in cells
    ]

    def whole() -> torch.Tensor:
        outputs, _ = lstm(model.embedding(token), state)
        return model.decoder(outputs)

    def by_cells() -> torch.Tensor:
        outputs = model.embedding(token)[0]
        for cell, pair in zip(cells, pairs, strict=True):
            outputs, _ = cell(outputs, pair)
        return model.decoder(outputs)

    def by_hand() -> torch.Tensor:
        outputs = model.embedding(token)[0]
        for (matrix, bias), (hidden, memory) in zip(fused, pairs, strict=True):
            gates = torch.addmm(bias, torch.cat([outputs, hidden], 1), matrix)
            i, f, g, o = gates.chunk(4, 1)
            outputs = o.sigmoid() * torch.tanh(f.sigmoid() * memory + i.sigmoid() * g.tanh())
        return model.decoder(outputs)

    with torch.inference_mode():
        found = {"as it comes": best_us(whole)}
        torch.backends.mkldnn.enabled = False
        return found | {"without oneDNN": best_us(whole), "LSTMCell": best_us(by_cells), "by hand": best_us(by_hand)}


MEASURES = {"engine": measure_engine, "bare": measure_bare, "torch": measure_torch}


def in_own_process(what: str, path: Path, threads: int) -> dict[str, float]:
    """Measure something with so many threads."""
    env = {**os.environ, **dict.fromkeys(THREADS, str(threads))}
    command = [sys.executable, __file__, "--measure", what, "--model", str(path)]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def best_of_rounds(path: Path, whats: list[str], rounds: int, threads: list[int]) -> dict[tuple[str, str, int], float]:
    """The least of each figure over rounds, by what was measured, the figure's name and the threads."""
    best: dict[tuple[str, str, int], float] = {}
    for _ in range(rounds):
        for count in threads:
            for what in whats:
                for name, value in in_own_process(what, path, count).items():
                    key = (what, name, count)
                    best[key] = min(best.get(key, value), value)
    return best


def shell_seconds(*command: str, rounds: int = 11) -> float:
    """The median time of a command, warm."""
    times = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def peak_megabytes(*command: str) -> float:
    """The greatest memory of a command."""
    code = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    done = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True)
    return float(done.stdout)


def speed_rows(folder: Path, rounds: int, threads: list[int]) -> list[tuple[str, str, str]]:
    """What one stream and 64 streams cost, each at its best number of threads."""
    big = make_model(folder / "2x512.safetensors", num_layers=2, hidden_size=512)
    best = best_of_rounds(big, ["engine", "bare", "torch"], rounds, threads)

    def least(what: str, *names: str) -> float:
        return min(value for (kind, name, _), value in best.items() if kind == what and name in names)

    def both(what: str, name: str) -> str:
        return ", ".join(f"{best[what, name, count]:,.0f} us with {count}" for count in threads)

    read, write = least("engine", "read 1"), least("engine", "write 1")
    as_it_comes = least("torch", "as it comes")
    bare, bare_many = (least("bare", f"multiply {count}") for count in (1, ROWS))
    best_torch = least("torch", "as it comes", "without oneDNN", "LSTMCell", "by hand")
    bytes_read = least("bare", "bytes")
    same = {
        count: ROWS * best["engine", "write 1", count] / best["engine", f"write {ROWS}", count] for count in threads
    }
    rows = [
        ("2x512, a token of one stream, read", f"{read:,.0f} us", both("engine", "read 1")),
        ("2x512, a token of one stream, read, drawn and written", f"{write:,.0f} us", both("engine", "write 1")),
        ("torch nn.LSTM as it comes / ours", f"{as_it_comes / write:.1f}", both("torch", "as it comes")),
        *(
            (f"torch {name} / ours", f"{least('torch', name) / write:.1f}", both("torch", name))
            for name in ("without oneDNN", "LSTMCell", "by hand")
        ),
        ("torch at its best / ours", f"{best_torch / write:.1f}", "the least of the four above"),
        (
            "share of bare matrix-vector products, read",
            f"{bare / read:.0%}",
            f"bare: {bare:,.0f} us, {bytes_read / 1e6:.1f} MB, {bytes_read / bare / 1e3:.0f} GB/s",
        ),
        ("share of bare matrix-vector products, written", f"{bare / write:.0%}", "drawing and text included"),
        *(
            (
                f"{ROWS} streams / one, {count} threads",
                f"{ratio:.1f}",
                f"{both('engine', f'write {ROWS}')}, a token of all",
            )
            for count, ratio in same.items()
        ),
        (
            f"share of bare products, {ROWS} streams, written",
            f"{bare_many / least('engine', f'write {ROWS}'):.0%}",
            f"bare: {bare_many:,.0f} us; by them alone {ROWS} streams would be {ROWS * bare / bare_many:.1f} times one",
        ),
    ]
    return rows


def score_rows(folder: Path, threads: list[int]) -> list[tuple[str, str, str]]:
    """What lines cost in a file, and what one costs that comes when the one before has been answered."""
    import numpy as np

    letters = np.random.default_rng(0).integers(0, len(CHARS) - 1, (LINES, LINE_CHARS - 1))
    lines = ["".join(CHARS[place] for place in row) + "\n" for row in letters]
    text, model = folder / "lines.txt", make_model(folder / "1x384.safetensors", num_layers=1, hidden_size=384)
    text.write_text("".join(lines), encoding="utf-8")
    rows = []
    for count in threads:
        command = [sys.executable, "-m", "charlm", "score", "-m", str(model), "--threads", str(count)]
        command += ["--format", "nats", "--json"]
        started = time.perf_counter()
        done = subprocess.run([*command, str(text)], check=True, capture_output=True, text=True)
        together = (time.perf_counter() - started) / LINES * 1e6
        alone, answers = answer_us(command, lines[:ALONE])
        pairs = zip(map(json.loads, done.stdout.splitlines()), answers, strict=False)
        difference = max(abs(one["nats"] - other["nats"]) for one, other in pairs)
        bound = LINE_CHARS * in_own_process("bare", model, count)[f"multiply {ROWS}"] / ROWS
        rows.append(
            (
                f"1x384, charlm score of {LINES:,} lines / a line at a time, {count} threads",
                f"{alone / together:.1f}",
                f"{together:,.0f} us a line, start-up counted in; {alone:,.0f} us from a line's writing to its answer; "
                f"at most {difference:.1e} nats apart; bare products alone take {bound:,.0f} us, and so would be "
                f"{alone / bound:.1f}",
            )
        )
    return rows


def answer_us(command: list[str], lines: list[str]) -> tuple[float, list[dict[str, float]]]:
    """The time from a line to its answer, where each comes once the one before has been answered; the answers."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        answers, began = [], 0.0
        for line in lines:
            process.stdin.write(line)
            answers.append(json.loads(process.stdout.readline()))
            began = began or time.perf_counter()  # once it has started
        spent = time.perf_counter() - began
        process.stdin.close()
    return spent / (len(lines) - 1) * 1e6, answers


def shell_rows(folder: Path) -> list[tuple[str, str, str]]:
    """Start-up and memory, as a shell sees them."""
    model = str(make_model(folder / "1x512.safetensors", num_layers=1, hidden_size=512))
    small = str(make_model(folder / "1x128.safetensors", num_layers=1, hidden_size=128))
    python, charlm = sys.executable, [sys.executable, "-m", "charlm"]
    click = shell_seconds(python, "-c", "import click")
    usage = shell_seconds(*charlm, "--help")
    sample = shell_seconds(*charlm, "sample", "-m", model, "-n", "200")
    torch = shell_seconds(python, "-c", "import torch", rounds=5)
    short, long = (peak_megabytes(*charlm, "sample", "-m", small, "-n", length) for length in ("1000", "1000000"))
    return [
        ("charlm --help / import click", f"{usage / click:.2f}", f"{usage * 1000:.0f} ms, {click * 1000:.0f} ms"),
        ("charlm sample -n 200, 1x512", f"{sample:.2f} s", "in all, from the shell"),
        ("import torch alone / that", f"{torch / sample:.1f}", f"{torch:.2f} s"),
        (
            "memory for 1,000,000 characters / for 1,000",
            f"{long / short:.2f}",
            f"{long:.1f} MB, {short:.1f} MB (1x128)",
        ),
    ]


def main() -> None:
    """Measure all, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure](options.model)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = speed_rows(Path(folder), options.rounds, options.threads)
        rows += score_rows(Path(folder), options.threads) + shell_rows(Path(folder))
    write_section(
        "engine",
        "The engine",
        f"Each figure is the best of its rounds, at the number of threads that suits it best unless that is said; "
        f"{os.cpu_count()} cores.\n\n{table(['what', 'figure', 'from'], rows)}",
        packages=("numpy", "torch"),
    )


if __name__ == "__main__":
    main()
