"""How long a text of gigabytes takes before its training begins, and how much memory.

Makes a text, runs `charlm train` on it for one step, and takes the time and the greatest resident memory up to the
moment at which learning would begin: the vocabulary is known and the ids lie in the cache.

    python -m benchmarks.large --gigabytes 2
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.report import table, write_section

ROOT = Path(__file__).parent.parent

WATCH = """
import json, resource, sys, time
from pathlib import Path
began = time.perf_counter()
from charlm.cli.job import Request, new_job
from charlm.corpus import Texts
from charlm.tokenizer import CharTokenizer
loaded = time.perf_counter()
specs, cache = [sys.argv[1]], Path(sys.argv[2])
if sys.argv[3] == "count":
    with Texts(specs) as texts:
        CharTokenizer.from_pieces(texts.pieces())
    figures = {"tokens": texts.chars}
else:
    nothing = dict.fromkeys(("glove", "name", "encoding", "errors"))
    request = Request(specs=specs, validation=(), cache=cache, force=False, **nothing)
    job = new_job(request, {"hidden_size": 64, "embedding_dim": 16, "steps": 1})
    ids = job.material.train_ids
    figures = {"tokens": len(ids) + len(job.material.val_ids), "type": str(ids.dtype)}
figures["seconds"] = time.perf_counter() - loaded
figures["cpu_seconds"] = time.process_time()
if sys.argv[3] != "count":
    import torch
    from charlm.cli.train import _fresh_model
    from charlm.batches import StreamBatches
    _fresh_model(job)
    StreamBatches(ids, 16, 64, start_id=1).inputs_and_targets(5)
figures["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps(figures))
"""

BLOCK = 2**24


def make_text(path: Path, size: int, data: Path, *, ascii_only: bool) -> None:
    """Write `size` bytes: a real text over and over; every 100th letter foreign, if not ASCII only."""
    source = data.read_text(encoding="utf-8")
    if not ascii_only:
        source = source.replace("q", "é").replace("z", "—").replace("J", "日")
    block = (source * (BLOCK // len(source) + 1)).encode()
    with path.open("wb") as file:
        while (left := size - file.tell()) > 0:
            file.write(block[:left] if ascii_only else block)


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
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of tinyshakespeare.txt")
    given = parser.parse_args()
    source = given.data / "tinyshakespeare.txt"
    if not source.exists():
        sys.exit(f"{source} is missing: name its folder with --data")
    rows = []
    for ascii_only in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            path, cache = Path(folder, "large.txt"), Path(folder, "cache")
            make_text(path, int(given.gigabytes * 1e9), source, ascii_only=ascii_only)
            size = path.stat().st_size / 1e6
            title = "ASCII" if ascii_only else "UTF-8, some letters foreign"
            for what, name in (
                ("count", "one pass of reading and counting"),
                ("first", "ready to train, the first time"),
                ("again", "ready to train, ids in the cache"),
            ):
                found = measure(path, cache, what, folder)
                speed, memory = size / found["seconds"], found["megabytes"]
                cpu = found["cpu_seconds"]
                rows.append((title, name, f"{found['seconds']:.1f}", f"{cpu:.1f}", f"{speed:,.0f}", f"{memory:,.0f}"))
                print(rows[-1], flush=True)
    write_section(
        "large",
        "Large texts",
        f"A text of {given.gigabytes:g} GB (tiny Shakespeare over and over), from the command to the first update: "
        "vocabulary, ids in the memory-mapped cache, PyTorch loaded, the first batch dealt. Memory is the greatest "
        "resident size of the process up to then, PyTorch's own libraries and mapped pages counted in.\n\n"
        + table(["text", "what", "seconds", "of the CPU", "MB/s", "resident, MB"], rows),
        packages=("numpy", "torch"),
    )


if __name__ == "__main__":
    main()
