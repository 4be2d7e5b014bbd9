"""Counts what charlm survives: runs the tests of the marker `torture`, and writes down what they lived through.

python -m benchmarks.torture
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import write_section

ROOT = Path(__file__).parent.parent

HEAD = """\
What the tests behind the marker `torture` lived through: kill -9 at random moments, damaged files, random command
lines. Survived means: an orderly end or one line of error; no traceback, no case longer than 20 s of the CPU, no more
than 400 MB more memory over all cases of a kind; and after every kill, no damaged file.

"""


MENDED = """
What these tests found, or writing them did, and what was mended:

- A scalar of AdamW's state came back from a save as a vector of one; the check of shapes refused every save.
- A run resumed after a kill logged the steps since its last save twice.
- The learning rate in the first logged line after a resume was AdamW's default, not the last update's.
- A log line that worked made a disk that was full look well again, so that every save warned anew.
- Text said to be UTF-16 without its mark ended `score` with a traceback.
- An unknown `--encoding` was taken for known when an installed package registers a codec for any name.
- With two processes, the copy of a good state waited for a partner that was not copying.
- A confident model of seven letters errs by more than an exploding one: the loss is judged by a running mean.
- Kills at random seconds never fell within a save: every update saves now, and the clock starts when it learns.
- SIGTERM while a text was read left the half-written file of ids in the cache.
- A process of several that was killed ended its partners with tracebacks; one that waited for it heard no signal.
"""
"""Added to when something is found."""


def cpu_minutes() -> float:
    """What all processes took that have been started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) / 60


def main() -> None:
    """Run the tests, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tests", nargs="*", help="tests to run, and only print; all, if left out")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = Path(folder) / "tally"
        tally.touch()
        began = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-q", "-m", "torture", *given.tests]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, "CHARLM_TALLY": str(tally)})
        seconds = time.monotonic() - began
        lines = tally.read_text(encoding="utf-8").splitlines()
    text = HEAD + "".join(f"- {line}\n" for line in lines)
    verdict = "All passed" if done.returncode == 0 else "NOT ALL PASSED"
    text += f"\n{verdict}, in {seconds / 60:.1f} minutes, {cpu_minutes():.1f} of the CPU.\n{MENDED}"
    if given.tests:
        print(text)
    else:
        write_section("torture", "Torture", text, packages=("torch", "numpy", "safetensors", "click", "hypothesis"))
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
