"""Times the reading of GloVe vectors for a vocabulary against the plain loop, and weighs its memory.

Each side runs in processes of its own, so that the peak memory is its own, in turn with the other; the best time of
each counts. Both use one thread: the processor's time is given beside the clock's, for a machine that has other
things to do. Needs the file of 400,000 vectors of 50 numbers, glove.6B.50d.txt.
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
from charlm.text.glove import VectorFile, read_vectors

SIDES = ("bare", "charlm", "plain")
ROUNDS = 3


def plain_loop(path: Path) -> dict[str, np.ndarray]:
    """What everybody writes first."""
    vectors = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            values = line.split()
            vectors[values[0]] = np.asarray(values[1:], dtype="float32")
    return vectors


def measure(side: str, path: Path, words: list[str], out: Path) -> dict[str, float]:
    """Read the vectors in one way, and keep those of the vocabulary for the comparison."""
    began, began_cpu = time.perf_counter(), time.process_time()
    vectors: dict[str, np.ndarray] = {}
    if side == "charlm":
        vectors = read_vectors(VectorFile(path), words)
    elif side == "plain":
        vectors = plain_loop(path)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = [word for word in words if word in vectors]
    if side != "bare":
        np.savez(out / side, words=np.array(found), vectors=np.array([vectors[word] for word in found]))
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": peak, "found": len(found)}


def main() -> None:
    """Run both sides and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--glove", type=Path, default=Path("glove.6B.50d.txt"))
    parser.add_argument("--data", type=Path, default=Path("data"), help="for ptb/train.txt: the vocabulary")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for what the sides leave to compare")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    text = options.data / "ptb" / "train.txt"
    for needed in (options.glove, text):
        if not needed.is_file():
            sys.exit(f"{needed} is missing: see the first lines of {__file__}")
    words = [word for word, _ in Counter(text.read_text(encoding="utf-8").split()).most_common(10_000)]
    if options.side:
        print(json.dumps(measure(options.side, options.glove, words, options.out)))
        return
    figures: dict[str, dict[str, float]] = {}
    for side in SIDES * ROUNDS:
        command = [sys.executable, "-m", "benchmarks.glove", *sys.argv[1:], "--side", side]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        before = figures.get(side, found)
        figures[side] = found | {name: min(found[name], before[name]) for name in ("seconds", "cpu_seconds")}
    ours, plain = (np.load(options.out / f"{side}.npz") for side in SIDES[1:])
    assert (ours["words"] == plain["words"]).all()
    assert ours["vectors"].tobytes() == plain["vectors"].tobytes()
    bare = figures.pop("bare")["peak_mb"]
    rows = [
        [
            side,
            *(f"{of[name]:.2f}" for name in ("seconds", "cpu_seconds")),
            f"{of['peak_mb'] - bare:.0f}",
            f"{of['found']:,}",
        ]
        for side, of in figures.items()
    ]
    by_clock, by_cpu = (figures["plain"][name] / figures["charlm"][name] for name in ("seconds", "cpu_seconds"))
    body = (
        f"{options.glove.name}, {options.glove.stat().st_size / 1e6:.0f} MB, against the {len(words):,} words of Penn "
        f"Treebank. Memory is the peak over that of the bare process; the best of {ROUNDS} rounds.\n\n"
        + table(["reader", "seconds", "processor's seconds", "MB", "words found"], rows)
        + f"\n\ncharlm is **{by_clock:.1f} times** as fast by the clock, **{by_cpu:.1f} times** in the processor's "
        "time; all values are identical, bit for bit."
    )
    write_section("glove", "Reading GloVe vectors", body)


if __name__ == "__main__":
    main()
