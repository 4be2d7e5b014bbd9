"""Time and memory from the start of a training to its first update, for texts of gigabytes.

    python -m benchmarks.large --gigabytes 2

The benchmark writes a text and prepares a training on it: the vocabulary is built, the ids are written to the cache and
the first batch is read. For comparison, it also times simple passes over the text.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import add_project_to_pythonpath
from benchmarks.report import table, write_section

WATCH = """
import contextlib, json, resource, sys, time
from pathlib import Path
from charlm.text.corpus import CorpusReader
from charlm.text.tokenizer import CharTokenizer
from charlm.training.request import Hardware, Request, TextOptions
from charlm.training.setup import prepare_new
settings = {"hidden_size": 64, "embedding_dim": 16, "steps": 1}
loaded, loaded_cpu = time.perf_counter(), time.process_time()
specs, cache, way = [sys.argv[1]], Path(sys.argv[2]), sys.argv[3]
figures, stack = {}, contextlib.ExitStack()
if way == "set":
    seen, chars = set(), 0
    with open(specs[0], encoding="utf-8") as file:
        while block := file.read(1 << 16):
            seen.update(block)
            chars += len(block)
elif way == "count":
    with CorpusReader(specs) as texts:
        CharTokenizer.from_pieces(texts.blocks())
else:
    request = Request(
        corpus=specs, settings=settings, text=TextOptions(cache=cache), hardware=Hardware(device="cpu")
    )
    training = stack.enter_context(prepare_new(request, dry_run=True))
figures["seconds"] = time.perf_counter() - loaded
figures["cpu_seconds"] = time.process_time() - loaded_cpu
if way in ("first", "again"):
    from charlm.training.batches import StreamBatches
    training.make_model()
    StreamBatches(training.dataset.train_ids, 16, 64, start_id=1).inputs_and_targets(5)
figures["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps(figures))
"""
"""Program that is run in a process of its own; prints its figures as JSON.

Its arguments are the text, the folder of the id cache, and one of `WAYS`.
"""

WAYS = {
    "set": "read once into a Python set of characters",
    "count": "read once and count characters",
    "first": "prepare a training, ids not in the cache",
    "again": "prepare a training, ids in the cache",
}
"""Ways to open the text, with their descriptions."""

BLOCK_BYTES = 2**24
"""Minimum number of bytes that are written at a time."""

LATIN, CYRILLIC = "abcdefghijklmnopqrstuvwxyz", "абцдефгхийклмнопярстувшжыз"
FRENCH = str.maketrans("eaoc", "éàôç")


def ascii_text(plays: str) -> str:
    """Return the text itself, with one byte per character."""
    return plays


def few_foreign(plays: str) -> str:
    """Return the text with about 0.1 % of its characters outside ASCII."""
    return plays.replace("q", "é").replace("z", "—").replace("J", "日")


def cyrillic(plays: str) -> str:
    """Return the text in Cyrillic letters, with two bytes per letter."""
    return plays.translate(str.maketrans(LATIN + LATIN.upper(), CYRILLIC + CYRILLIC.upper()))


def mixed(plays: str) -> str:
    """Return the text with blocks of 40 lines in turn: English, accents, Cyrillic, 5,000 Chinese characters, emoji."""
    chinese = itertools.cycle(chr(0x4E00 + square * square % 5000) for square in range(2500))
    conversions: list[Callable[[str], str]] = [
        ascii_text,
        lambda line: line.translate(FRENCH),
        cyrillic,
        lambda line: "".join(next(chinese) if char.isalpha() else char for char in line),
        lambda line: line.replace(".", "\N{GRINNING FACE}").replace(",", "\N{SMILING FACE WITH HEART-SHAPED EYES}"),
    ]
    lines = plays.splitlines(keepends=True)
    blocks = ("".join(lines[start : start + 40]) for start in range(0, len(lines), 40))
    return "".join(convert(block) for convert, block in zip(itertools.cycle(conversions), blocks, strict=False))


TEXTS = {
    "ASCII": ascii_text,
    "UTF-8, 0.1 % of characters outside ASCII": few_foreign,
    "Cyrillic": cyrillic,
    "several scripts and emoji": mixed,
}
"""Texts to measure: functions that convert tiny Shakespeare."""


def make_text(path: Path, size: int, source: str) -> None:
    """Write about `size` bytes, by repeating a text."""
    data = source.encode()
    block = data * (BLOCK_BYTES // len(data) + 1)
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(block)


def measure(path: Path, cache: Path, way: str, folder: str) -> dict[str, float]:
    """Open the text in one of `WAYS`, in a process of its own."""
    command = [sys.executable, "-c", WATCH, str(path), str(cache), way]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def main() -> None:
    """Write the texts, measure all ways, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of each text (default: 2)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with tinyshakespeare.txt")
    args = parser.parse_args()
    add_project_to_pythonpath()
    source = args.data / "tinyshakespeare.txt"
    if not source.exists():
        sys.exit(f"{source} is missing: set --data")
    rows = []
    for title, convert in TEXTS.items():
        with tempfile.TemporaryDirectory() as folder:
            path, cache = Path(folder, "large.txt"), Path(folder, "cache")
            make_text(path, int(args.gigabytes * 1e9), convert(source.read_text(encoding="utf-8")))
            size = path.stat().st_size / 1e6
            for way, description in WAYS.items():
                found = measure(path, cache, way, folder)
                wall, cpu = found["seconds"], found["cpu_seconds"]
                figures = (f"{wall:.1f}", f"{cpu:.1f}", f"{size / cpu:,.0f}", f"{found['megabytes']:,.0f}")
                rows.append((title, description, *figures))
                print(rows[-1], flush=True)
    write_section(
        "large",
        "Large texts",
        f"Each text has {args.gigabytes:g} GB: tiny Shakespeare, repeated, with some letters replaced. To prepare a "
        "training means: build the vocabulary, write or find the ids in the memory-mapped cache, and import PyTorch; "
        "then the first batch is read. CPU time depends less on other programs than elapsed time. Memory is the peak "
        "resident size of the process, including PyTorch's libraries and memory-mapped pages.\n\n"
        + table(["text", "work", "seconds", "CPU seconds", "MB per CPU second", "peak memory, MB"], rows),
        packages=("numpy", "torch"),
    )


if __name__ == "__main__":
    main()
