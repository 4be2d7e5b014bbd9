"""Speed, start-up time and memory of the NumPy network, compared with PyTorch and with bare matrix products.

    python -m benchmarks.engine [--rounds 5]

NumPy's number of threads is fixed when it is imported. So each measurement runs in a process of its own, with one
thread and with two (`--threads`). The measurements alternate in rounds, and the best round of each counts. The models
are untrained, because speed does not depend on the weights.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.report import table, write_section
from benchmarks.timing import best_microseconds

CHARS = "".join(map(chr, range(32, 96))) + "\n"
"""Characters of the models' vocabulary."""

LINES, LINE_CHARS, SINGLE_LINES = 20_000, 60, 400
"""Number of lines to score in one file, characters per line, and number of lines to score one at a time."""

STREAMS = 64
"""Number of sequences that are processed in parallel."""

THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

TORCH_WAYS = {
    "default": "nn.LSTM, default settings",
    "without oneDNN": "nn.LSTM without oneDNN",
    "LSTMCell": "nn.LSTMCell",
    "by hand": "LSTM written with matrix products",
}
"""Ways to compute the model with PyTorch."""

Row = tuple[str, str, str]
"""Row of the table: what was measured, the figure, and details."""


class Key(NamedTuple):
    """Name of a figure: the measurement that it belongs to, the figure, and the number of threads."""

    measurement: str
    figure: str
    threads: int


def make_model(path: Path, **shape: int) -> Path:
    """Write the file of an untrained model."""
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
    """Return the microseconds per token of 1 and of 64 streams: reading only, and generating text."""
    import numpy as np

    from charlm.engine.rnn import RecurrentNetwork, Stepper
    from charlm.engine.sampler import Sampler
    from charlm.sample_config import SampleConfig

    network = RecurrentNetwork.load(path)
    found = {}
    for streams in (1, STREAMS):
        stepper, ids = Stepper(network, network.zero_state(streams)), np.arange(streams) % 60 + 1
        found[f"read {streams}"] = best_microseconds(lambda stepper=stepper, ids=ids: network.logits(stepper.step(ids)))
        samples = Sampler(predictor=network, config=SampleConfig(length=-1, seed=1, count=streams)).stream()
        found[f"generate {streams}"] = best_microseconds(lambda samples=samples: next(samples))
    return found


def measure_products(path: Path) -> dict[str, float]:
    """Return the microseconds of the bare matrix products for 1 and for 64 streams, and the bytes of the matrices.

    The products are those of the network, without anything else. Each is computed with the streams as columns and as
    rows, and the faster way counts.
    """
    import numpy as np

    from charlm.engine.rnn import RecurrentNetwork

    network = RecurrentNetwork.load(path)
    matrices = [network.layers[0].recurrent, *(layer.joined for layer in network.layers[1:]), network.decoder]
    transposed = [np.ascontiguousarray(matrix.T) for matrix in matrices]

    def products_microseconds(factors: list[tuple[np.ndarray, np.ndarray]]) -> float:
        outputs = [np.empty((left.shape[0], right.shape[1]), dtype=np.float32) for left, right in factors]

        def multiply() -> None:
            for (left, right), output in zip(factors, outputs, strict=True):
                np.dot(left, right, out=output)

        return best_microseconds(multiply)

    found: dict[str, float] = {"bytes": sum(matrix.nbytes for matrix in matrices)}
    for streams in (1, STREAMS):
        rows = [np.full((streams, matrix.shape[1]), 0.1, dtype=np.float32) for matrix in matrices]
        columns = [np.ascontiguousarray(vectors.T) for vectors in rows]
        ways = (zip(matrices, columns, strict=True), zip(rows, transposed, strict=True))
        found[f"multiply {streams}"] = min(products_microseconds(list(way)) for way in ways)
    return found


def measure_torch(path: Path) -> dict[str, float]:
    """Return the microseconds per token of one stream for each of `TORCH_WAYS`."""
    import torch

    from charlm.engine.checkpoint import load_checkpoint
    from charlm.training.network import LanguageModel

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.set_flush_denormal(True)
    checkpoint = load_checkpoint(path)
    model = LanguageModel(checkpoint.config).eval()
    model.load_tensors(checkpoint.tensors)
    lstm, cells = torch_layers(model)
    token = torch.tensor([[5]])
    state = model.core.zero_state(1)
    cell_states = list(zip(*state, strict=True))  # (h, c) of each layer
    weights = [
        (torch.cat([cell.weight_ih, cell.weight_hh], 1).T.contiguous(), cell.bias_ih + cell.bias_hh) for cell in cells
    ]

    def with_lstm() -> torch.Tensor:
        outputs, _ = lstm(model.embedding(token), state)
        return model.decoder(outputs)

    def with_cells() -> torch.Tensor:
        outputs = model.embedding(token)[0]
        for cell, cell_state in zip(cells, cell_states, strict=True):
            outputs, _ = cell(outputs, cell_state)
        return model.decoder(outputs)

    def by_hand() -> torch.Tensor:
        outputs = model.embedding(token)[0]
        for (matrix, bias), (h, c) in zip(weights, cell_states, strict=True):
            gates = torch.addmm(bias, torch.cat([outputs, h], 1), matrix)
            i, f, g, o = gates.chunk(4, 1)
            outputs = o.sigmoid() * torch.tanh(f.sigmoid() * c + i.sigmoid() * g.tanh())
        return model.decoder(outputs)

    with torch.inference_mode():
        found = {"default": best_microseconds(with_lstm)}
        torch.backends.mkldnn.enabled = False
        for name, work in {"without oneDNN": with_lstm, "LSTMCell": with_cells, "by hand": by_hand}.items():
            found[name] = best_microseconds(work)
    return found


def torch_layers(model: Any) -> tuple[Any, list[Any]]:  # noqa: ANN401 - torch is imported inside functions only
    """Return an nn.LSTM and a list of nn.LSTMCell with the weights of a model."""
    from torch import nn

    config = model.config
    lstm = nn.LSTM(config.embedding_dim, config.hidden_size, config.num_layers, batch_first=True).eval()
    cells = []
    for index, layer in enumerate(model.core.layers):
        weights = {name.removesuffix("_l0"): value for name, value in layer.state_dict().items()}
        cells.append(nn.LSTMCell(layer.input_size, layer.hidden_size).eval())
        cells[index].load_state_dict(weights)
        lstm.load_state_dict({f"{name}_l{index}": value for name, value in weights.items()}, strict=False)
    return lstm, cells


MEASUREMENTS = {"engine": measure_engine, "products": measure_products, "torch": measure_torch}


def measure_in_process(measurement: str, path: Path, threads: int) -> dict[str, float]:
    """Run one of `MEASUREMENTS` in a process of its own."""
    env = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    command = [sys.executable, "-m", "benchmarks.engine", "--measure", measurement, "--model", str(path)]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def best_of_rounds(path: Path, rounds: int, threads: list[int]) -> dict[Key, float]:
    """Run all measurements in several rounds, and return the minimum of each figure."""
    best: dict[Key, float] = {}
    for _ in range(rounds):
        for count in threads:
            for measurement in MEASUREMENTS:
                for figure, value in measure_in_process(measurement, path, count).items():
                    key = Key(measurement, figure, count)
                    best[key] = min(best.get(key, value), value)
    return best


def shell_seconds(*command: str, rounds: int = 11) -> float:
    """Return the median time of a command in seconds, after one run that is not counted."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def peak_megabytes(*command: str) -> float:
    """Return the peak memory of a command."""
    code = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    done = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True)
    return float(done.stdout)


def speed_rows(folder: Path, rounds: int, threads: list[int]) -> list[Row]:
    """Measure the time per token of one stream and of 64 streams."""
    model = make_model(folder / "2x512.safetensors", num_layers=2, hidden_size=512)
    best = best_of_rounds(model, rounds, threads)

    def minimum(measurement: str, *figures: str) -> float:
        return min(value for key, value in best.items() if key.measurement == measurement and key.figure in figures)

    def by_threads(measurement: str, figure: str) -> str:
        return ", ".join(f"{best[Key(measurement, figure, count)]:,.0f} us ({count})" for count in threads)

    read, generate = minimum("engine", "read 1"), minimum("engine", "generate 1")
    torch = {way: minimum("torch", way) for way in TORCH_WAYS}
    product, products, size = (minimum("products", name) for name in ("multiply 1", f"multiply {STREAMS}", "bytes"))
    many = f"generate {STREAMS}"
    ratios = {
        count: STREAMS * best[Key("engine", "generate 1", count)] / best[Key("engine", many, count)]
        for count in threads
    }
    product_note = f"products: {product:,.0f} us, {size / 1e6:.1f} MB, {size / product / 1e3:.0f} GB/s"
    products_note = f"products: {products:,.0f} us; they alone would give {STREAMS * product / products:.1f} times"
    return [
        ("2x512, one stream: read a token", f"{read:,.0f} us", by_threads("engine", "read 1")),
        ("2x512, one stream: generate a token", f"{generate:,.0f} us", by_threads("engine", "generate 1")),
        *(
            (f"torch, {TORCH_WAYS[way]} / charlm, generate", f"{time / generate:.1f}", by_threads("torch", way))
            for way, time in torch.items()
        ),
        ("torch, fastest way / charlm, generate", f"{min(torch.values()) / generate:.1f}", "minimum of the above"),
        ("time of bare matrix-vector products / read", f"{product / read:.0%}", product_note),
        ("time of bare matrix-vector products / generate", f"{product / generate:.0%}", "sampling and text included"),
        *(
            (
                f"throughput of {STREAMS} streams / one stream, {threads_label(count)}",
                f"{ratio:.1f}",
                f"{by_threads('engine', many)} per token of all streams",
            )
            for count, ratio in ratios.items()
        ),
        (
            f"time of bare products / generate, {STREAMS} streams",
            f"{products / minimum('engine', many):.0%}",
            products_note,
        ),
    ]


def threads_label(count: int) -> str:
    """Return a number of threads in words."""
    return "1 thread" if count == 1 else f"{count} threads"


def score_rows(folder: Path, threads: list[int]) -> list[Row]:
    """Measure the time per line of `charlm score`: many lines in a file, and one line at a time through a pipe."""
    import numpy as np

    letters = np.random.default_rng(0).integers(0, len(CHARS) - 1, (LINES, LINE_CHARS - 1))
    lines = ["".join(CHARS[index] for index in row) + "\n" for row in letters]
    text, model = folder / "lines.txt", make_model(folder / "1x384.safetensors", num_layers=1, hidden_size=384)
    text.write_text("".join(lines), encoding="utf-8")
    rows = []
    for count in threads:
        command = [sys.executable, "-m", "charlm", "score", "-m", str(model), "--threads", str(count)]
        command += ["--format", "nats", "--json"]
        start = time.perf_counter()
        done = subprocess.run([*command, str(text)], check=True, capture_output=True, text=True)
        together = (time.perf_counter() - start) / LINES * 1e6
        alone, answers = answer_microseconds(command, lines[:SINGLE_LINES])
        pairs = zip(map(json.loads, done.stdout.splitlines()), answers, strict=False)
        difference = max(abs(one["nats"] - other["nats"]) for one, other in pairs)
        products = measure_in_process("products", model, count)[f"multiply {STREAMS}"]
        bound = LINE_CHARS * products / STREAMS
        rows.append(
            (
                f"1x384, charlm score: line through a pipe / line of a file of {LINES:,}, {threads_label(count)}",
                f"{alone / together:.1f}",
                f"{together:,.0f} us per line of the file, with start-up; {alone:,.0f} us from writing a line to its "
                f"answer; maximum difference {difference:.1e} nats; bare products take {bound:,.0f} us per line and "
                f"would give {alone / bound:.1f}",
            )
        )
    return rows


def answer_microseconds(command: list[str], lines: list[str]) -> tuple[float, list[dict[str, float]]]:
    """Write lines to a command, each after the answer to the line before.

    Returns:
        The time from a line to its answer in microseconds, without the first line and the start-up, and the answers.
    """
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        answers, start = [], 0.0
        for line in lines:
            process.stdin.write(line)
            answers.append(json.loads(process.stdout.readline()))
            start = start or time.perf_counter()  # after the first answer
        spent = time.perf_counter() - start
        process.stdin.close()
    return spent / (len(lines) - 1) * 1e6, answers


def shell_rows(folder: Path) -> list[Row]:
    """Measure start-up time and memory of commands."""
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
        ("charlm sample -n 200, 1x512", f"{sample:.2f} s", "start-up included"),
        ("import torch / charlm sample -n 200", f"{torch / sample:.1f}", f"import torch: {torch:.2f} s"),
        (
            "peak memory for 1,000,000 characters / for 1,000",
            f"{long / short:.2f}",
            f"{long:.1f} MB, {short:.1f} MB (1x128)",
        ),
    ]


def main() -> None:
    """Run all measurements, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads to measure")
    parser.add_argument("--measure", choices=MEASUREMENTS, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(MEASUREMENTS[args.measure](args.model)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = speed_rows(Path(folder), args.rounds, args.threads)
        rows += score_rows(Path(folder), args.threads) + shell_rows(Path(folder))
    write_section(
        "engine",
        "The NumPy engine",
        f"{os.cpu_count()} cores. 2x512 means two LSTM layers of 512 units. Each time is the best of its rounds, with "
        "the number of threads that is fastest unless the row names one. The last column gives times with the number "
        f"of threads in brackets.\n\n{table(['measurement', 'figure', 'details'], rows)}",
        packages=("numpy", "torch"),
    )


if __name__ == "__main__":
    main()
