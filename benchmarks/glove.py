"""Speed and memory of reading GloVe vectors for a vocabulary, compared with plain Python loops.

    python -m benchmarks.glove --glove glove.6B.50d.txt --data data

Each reader runs in processes of its own, so that the peak memory is its own. The readers alternate, and the best time
of each counts. All use one thread. CPU time is reported too, because it depends less on other programs. The benchmark
needs glove.6B.50d.txt, a file of 400,000 vectors of 50 numbers.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.report import table, write_section
from charlm.text.vector_files import VectorFile

READERS = {
    "none": "",
    "charlm": "`charlm.text.vector_files`, which also finds damaged rows, headers and other formats",
    "skipping loop": "a loop over lines that parses only the rows of the vocabulary",
    "plain loop": "a loop over lines that parses all rows",
}
"""Names of the readers, with descriptions. `none` reads nothing: it measures the memory of the imports."""

ROUNDS = 3
VOCAB_SIZE = 10_000


def plain_loop(path: Path) -> dict[str, np.ndarray]:
    """Read all vectors with a loop over lines, as most programs do."""
    vectors = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            values = line.split()
            vectors[values[0]] = np.asarray(values[1:], dtype="float32")
    return vectors


def skipping_loop(path: Path, words: list[str]) -> dict[str, np.ndarray]:
    """Read the vectors of some words with a loop over lines that skips all other lines."""
    wanted, vectors = set(words), {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            word, _, numbers = line.partition(" ")
            if word in wanted:
                vectors[word] = np.asarray(numbers.split(), dtype="float32")
    return vectors


def measure(reader: str, path: Path, words: list[str], out: Path) -> dict[str, float]:
    """Read the vectors with one reader, and save those of the vocabulary for the comparison."""
    start, start_cpu = time.perf_counter(), time.process_time()
    vectors: dict[str, np.ndarray] = {}
    if reader == "charlm":
        vectors = VectorFile(path).read(words)
    elif reader == "skipping loop":
        vectors = skipping_loop(path, words)
    elif reader == "plain loop":
        vectors = plain_loop(path)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = [word for word in words if word in vectors]
    if reader != "none":
        np.savez(out / reader, words=np.array(found), vectors=np.array([vectors[word] for word in found]))
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": peak, "found": len(found)}


def measure_all() -> dict[str, dict[str, float]]:
    """Measure every reader in several rounds, each time in a process of its own; return the best times."""
    figures: dict[str, dict[str, float]] = {}
    for reader in [*READERS] * ROUNDS:
        command = [sys.executable, "-m", "benchmarks.glove", *sys.argv[1:], "--reader", reader]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        before = figures.get(reader, found)
        figures[reader] = found | {name: min(found[name], before[name]) for name in ("seconds", "cpu_seconds")}
    return figures


def report(figures: dict[str, dict[str, float]], path: Path, num_words: int) -> None:
    """Write the result file."""
    base = figures.pop("none")["peak_mb"]
    rows = [
        [
            f"{reader}: {READERS[reader]}",
            f"{found['seconds']:.2f}",
            f"{found['cpu_seconds']:.2f}",
            f"{max(0, found['peak_mb'] - base):.0f}",  # below 0 if it is less than the noise
            f"{found['found']:,}",
        ]
        for reader, found in figures.items()
    ]
    ratios = {reader: figures[reader]["cpu_seconds"] / figures["charlm"]["cpu_seconds"] for reader in figures}
    body = (
        f"{path.name}, {path.stat().st_size / 1e6:.0f} MB, read for the {num_words:,} words of Penn Treebank. Times "
        f"are the best of {ROUNDS} rounds. Memory is the peak of the process, minus that of a process that only "
        "imports NumPy and charlm.\n\n"
        + table(["reader", "seconds", "CPU seconds", "memory, MB", "words found"], rows)
        + f"\n\nThe skipping loop takes **{ratios['skipping loop']:.2f} times** the processor time of charlm, the "
        f"plain loop **{ratios['plain loop']:.1f} times**. The vectors of all readers are identical, bit for bit."
    )
    write_section("glove", "Reading GloVe vectors", body)


def main() -> None:
    """Measure all readers, check that their vectors are identical, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glove", type=Path, default=Path("glove.6B.50d.txt"), help="file of GloVe vectors")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with ptb/train.txt, the vocabulary")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the vectors found by each reader")
    parser.add_argument("--reader", choices=READERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    text = args.data / "ptb" / "train.txt"
    for path, option in ((args.glove, "--glove"), (text, "--data")):
        if not path.is_file():
            sys.exit(f"{path} is missing: set {option}")
    words = [word for word, _ in Counter(text.read_text(encoding="utf-8").split()).most_common(VOCAB_SIZE)]
    if args.reader:
        print(json.dumps(measure(args.reader, args.glove, words, args.out)))
        return
    figures = measure_all()
    ours, *others = (np.load(args.out / f"{reader}.npz") for reader in READERS if reader != "none")
    for other in others:
        assert (ours["words"] == other["words"]).all()
        assert ours["vectors"].tobytes() == other["vectors"].tobytes()
    report(figures, args.glove, len(words))


if __name__ == "__main__":
    main()
