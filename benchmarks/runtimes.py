"""Time per token of onnxruntime with exported graphs, compared with the NumPy network: one stream, one thread.

    python -m benchmarks.runtimes [--rounds 40]

The graph is measured as it is exported, and with the weights of its LSTM layers in int8 (dynamic quantization). The
ways take turns in rounds in one process, and the best round of each counts. The models are untrained, because speed
does not depend on the weights. The loss is that of the included model on the end of Shakespeare's plays.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))  # before NumPy is imported

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: E402

from benchmarks.engine import make_model  # noqa: E402
from benchmarks.report import table, write_section  # noqa: E402
from charlm.engine.checkpoint import Checkpoint, load_checkpoint  # noqa: E402
from charlm.engine.onnx_export import onnx_bytes  # noqa: E402
from charlm.engine.rnn import RecurrentNetwork  # noqa: E402
from charlm.engine.runs import find_model  # noqa: E402
from charlm.engine.scorer import score_text  # noqa: E402
from charlm.text.named_corpora import NAMED_CORPORA  # noqa: E402

SHAPES = ((1, 512), (2, 512), (2, 1024))
"""Numbers of layers and units."""

CALLS = 25
"""Number of steps of one round."""

LOSS_CHARS, BLOCK_CHARS = 20_000, 1000
"""Number of characters whose loss is measured, and number that are read at a time."""

Step = Callable[[], object]


def write_graphs(checkpoint: Checkpoint, folder: Path) -> tuple[Path, Path]:
    """Write a network as a graph in single precision, and with LSTM layers in int8."""
    single, int8 = folder / "single.onnx", folder / "int8.onnx"
    single.write_bytes(onnx_bytes(checkpoint, "benchmark"))
    quantize_dynamic(single, int8, weight_type=QuantType.QInt8, op_types_to_quantize=["LSTM"])
    return single, int8


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Open a graph for use with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def zero_state(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """Return the state before the first token of one text."""
    shape = (checkpoint.config.num_layers, 1, checkpoint.config.hidden_size)
    return {part: np.zeros(shape, dtype=np.float32) for part in "hc"}


def session_step(path: Path, checkpoint: Checkpoint) -> Step:
    """Return a function that reads one token with onnxruntime, and computes the log-probabilities of the next."""
    session, state, ids = open_session(path), zero_state(checkpoint), np.array([[5]])

    def step() -> None:
        _, state["h"], state["c"] = session.run(None, {"ids": ids, **state})

    return step


def network_steps(checkpoint: Checkpoint) -> tuple[Step, Step]:
    """Return functions that read one token with the NumPy network, and that compute the bare matrix products."""
    network = RecurrentNetwork(checkpoint)
    reader, ids = network.read([np.array([5])]), np.array([5])
    matrices = [network.layers[0].recurrent, *(layer.joined for layer in network.layers[1:]), network.decoder]
    vectors = [np.full((matrix.shape[1], 1), 0.1, dtype=np.float32) for matrix in matrices]

    def step() -> None:
        reader.advance(ids)
        reader.logits()

    return step, lambda: [matrix @ vector for matrix, vector in zip(matrices, vectors, strict=True)]


def best_of_rounds(ways: dict[str, Step], rounds: int) -> dict[str, float]:
    """Return the microseconds per step of each way, in its best round. The ways take turns."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, step in ways.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                step()
            best[name] = min(best[name], (time.perf_counter() - start) / CALLS * 1e6)
    return best


def speed_rows(folder: Path, rounds: int) -> list[list[str]]:
    """Measure each of `SHAPES`."""
    rows = []
    for num_layers, hidden_size in SHAPES:
        path = make_model(folder / "model.safetensors", num_layers=num_layers, hidden_size=hidden_size)
        checkpoint = load_checkpoint(path)
        single, int8 = write_graphs(checkpoint, folder)
        numpy_step, products = network_steps(checkpoint)
        ways = {"products": products, "numpy": numpy_step}
        ways |= {"single": session_step(single, checkpoint), "int8": session_step(int8, checkpoint)}
        best = best_of_rounds(ways, rounds)
        times = [f"{best[name]:,.0f}" for name in ways]
        rows.append([f"{num_layers} x {hidden_size}", *times, f"{best['numpy'] / best['int8']:.1f}"])
    return rows


def graph_nats(path: Path, checkpoint: Checkpoint, text: str) -> float:
    """Return the loss of a graph on a text in nats per token."""
    ids = checkpoint.tokenizer.encode("\n" + text).astype(np.int64)
    session, state, total = open_session(path), zero_state(checkpoint), 0.0
    for begin in range(0, len(ids) - 1, BLOCK_CHARS):
        part = ids[begin : begin + BLOCK_CHARS + 1]
        log_probs, state["h"], state["c"] = session.run(None, {"ids": part[None, :-1], **state})
        total -= float(log_probs[0, np.arange(len(part) - 1), part[1:]].sum(dtype=np.float64))
    return total / (len(ids) - 1)


def loss_line(folder: Path) -> str:
    """Compare the losses of the included model."""
    checkpoint = load_checkpoint(find_model("shakespeare"))
    text = NAMED_CORPORA["shakespeare"].load()[-LOSS_CHARS:]
    single, int8 = (graph_nats(path, checkpoint, text) for path in write_graphs(checkpoint, folder))
    numpy_nats = score_text(RecurrentNetwork(checkpoint), text).nats_per_token
    return (
        f"Loss of the included model on the last {LOSS_CHARS:,} characters of Shakespeare's plays, in nats per "
        f"character: NumPy {numpy_nats:.5f}, onnxruntime {single:.5f}, int8 {int8:.5f}."
    )


def import_seconds(module: str) -> float:
    """Return the CPU time of importing a module in a new process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows, loss = speed_rows(Path(name), args.rounds), loss_line(Path(name))
    header = ["model", "bare products", "NumPy", "onnxruntime", "onnxruntime, int8", "NumPy / int8"]
    imports = " and ".join(
        f"{module} {min(import_seconds(module) for _ in range(5)):.2f} s" for module in ("numpy", "onnxruntime")
    )
    body = "Microseconds to read a token and predict the next one: one stream, one thread.\n\n"
    body += f"{table(header, rows)}\n\n{loss} CPU time of the import: {imports}.\n"
    write_section("runtimes", "onnxruntime", body, packages=("numpy", "onnxruntime"))


if __name__ == "__main__":
    main()
