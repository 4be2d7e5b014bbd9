"""How long a text of gigabytes takes before its training begins, and how much memory.

Makes a text, runs `charlm train` on it for one step, and takes the time and the greatest resident memory up to the
moment at which learning would begin: the vocabulary is known and the ids lie in the cache.

    python -m benchmarks.large --gigabytes 2
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import found_by_children
from benchmarks.report import table, write_section

WATCH = """
import json, resource, sys, time
from pathlib import Path
began = time.perf_counter()
from charlm.training.setup import Request, new_job
from charlm.text.corpus import Texts
from charlm.text.tokenizer import CharTokenizer
loaded, loaded_cpu = time.perf_counter(), time.process_time()
specs, cache = [sys.argv[1]], Path(sys.argv[2])
if sys.argv[3] == "set":
    seen, chars = set(), 0
    with open(specs[0], encoding="utf-8") as file:
        while block := file.read(1 << 16):
            seen.update(block)
            chars += len(block)
    figures = {"tokens": chars}
elif sys.argv[3] == "count":
    with Texts(specs) as texts:
        CharTokenizer.from_pieces(texts.blocks())
    figures = {"tokens": texts.num_chars}
else:
    nothing = dict.fromkeys(("glove", "start", "name", "encoding", "errors"))
    request = Request(specs=specs, validation=(), cache=cache, force=False, **nothing)
    from charlm.training.throughput import Machine
    job = new_job(request, {"hidden_size": 64, "embedding_dim": 16, "steps": 1}, Machine)
    ids = job.material.train_ids
    figures = {"tokens": len(ids) + len(job.material.val_ids), "type": str(ids.dtype)}
figures["seconds"] = time.perf_counter() - loaded
figures["cpu_seconds"] = time.process_time() - loaded_cpu
if sys.argv[3] in ("first", "again"):
    import torch
    from charlm.cli.train import _fresh_model
    from charlm.training.batches import StreamBatches
    _fresh_model(job)
    StreamBatches(ids, 16, 64, start_id=1).inputs_and_targets(5)
figures["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps(figures))
"""

BLOCK = 2**24

LATIN, CYRILLIC = "abcdefghijklmnopqrstuvwxyz", "абцдефгхийклмнопярстувшжыз"
FRENCH = str.maketrans("eaoc", "éàôç")


def ascii_text(plays: str) -> str:
    """One byte a character."""
    return plays


def few_foreign(plays: str) -> str:
    """A letter in a hundred is beyond ASCII."""
    return plays.replace("q", "é").replace("z", "—").replace("J", "日")


def cyrillic(plays: str) -> str:
    """Two bytes a letter."""
    return plays.translate(str.maketrans(LATIN + LATIN.upper(), CYRILLIC + CYRILLIC.upper()))


def mixed(plays: str) -> str:
    """Lines in English, with accents on every fourth letter, in Cyrillic, in 5,000 Chinese characters, with emoji."""
    chinese = itertools.cycle(chr(0x4E00 + square * square % 5000) for square in range(2500))
    ways: list[Callable[[str], str]] = [
        ascii_text,
        lambda line: line.translate(FRENCH),
        cyrillic,
        lambda line: "".join(next(chinese) if char.isalpha() else char for char in line),
        lambda line: line.replace(".", "\N{GRINNING FACE}").replace(",", "\N{SMILING FACE WITH HEART-SHAPED EYES}"),
    ]
    lines = plays.splitlines(keepends=True)
    paragraphs = ("".join(lines[begin : begin + 40]) for begin in range(0, len(lines), 40))
    return "".join(way(text) for way, text in zip(itertools.cycle(ways), paragraphs, strict=False))


TEXTS = {
    "ASCII": ascii_text,
    "UTF-8, some letters foreign": few_foreign,
    "Cyrillic": cyrillic,
    "several scripts and emoji": mixed,
}


def make_text(path: Path, size: int, source: str) -> None:
    """Write about `size` bytes: a text over and over."""
    data = source.encode()
    block = data * (BLOCK // len(data) + 1)
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(block)


def measure(path: Path, cache: Path, what: str, folder: str) -> dict[str, float]:
    """Run one way of opening the text in a process of its own."""
    command = [sys.executable, "-c", WATCH, str(path), str(cache), what]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def main() -> None:
    """Make the texts, measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of tinyshakespeare.txt")
    given = parser.parse_args()
    found_by_children()
    source = given.data / "tinyshakespeare.txt"
    if not source.exists():
        sys.exit(f"{source} is missing: name its folder with --data")
    rows = []
    for title, turned in TEXTS.items():
        with tempfile.TemporaryDirectory() as folder:
            path, cache = Path(folder, "large.txt"), Path(folder, "cache")
            make_text(path, int(given.gigabytes * 1e9), turned(source.read_text(encoding="utf-8")))
            size = path.stat().st_size / 1e6
            for what, name in (
                ("set", "one pass of reading into a set of Python's"),
                ("count", "one pass of reading and counting"),
                ("first", "ready to train, the first time"),
                ("again", "ready to train, ids in the cache"),
            ):
                found = measure(path, cache, what, folder)
                wall, cpu = found["seconds"], found["cpu_seconds"]
                figures = (f"{wall:.1f}", f"{cpu:.1f}", f"{size / cpu:,.0f}", f"{found['megabytes']:,.0f}")
                rows.append((title, name, *figures))
                print(rows[-1], flush=True)
    write_section(
        "large",
        "Large texts",
        f"A text of {given.gigabytes:g} GB (tiny Shakespeare over and over, its letters turned into others), from the "
        "command to the first update: vocabulary, ids in the memory-mapped cache, PyTorch loaded, the first batch "
        "dealt. Megabytes of text are given for a second of the CPU, which other work on the machine disturbs least. "
        "Memory is the greatest resident size of the process up to then, PyTorch's own libraries and mapped pages "
        "counted in.\n\n" + table(["text", "what", "seconds", "of the CPU", "MB a CPU second", "resident, MB"], rows),
        packages=("numpy", "torch"),
    )


if __name__ == "__main__":
    main()
