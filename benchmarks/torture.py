"""Run the tests of the marker `torture`, and write what they counted.

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

INTRODUCTION = """\
Results of the tests with the marker `torture`: trainings killed with SIGKILL at random moments, damaged files, and
random command lines. A case passes if the command succeeds or reports an error in one line, without a traceback and
within 20 s of CPU time. Memory may grow by at most 400 MiB over all cases of a test. No kill may leave a damaged file.

"""

DEFECTS_FOUND = """
Defects that these tests found, or that were found while the tests were written. All are fixed.

- A scalar of AdamW's state was loaded as a vector of length one, so that the check of shapes refused every saved state.
- A run that was resumed after a kill logged the steps since its last save twice.
- The learning rate in the first log line after a resume was AdamW's default instead of the last update's.
- After a log line was written successfully, a full disk was considered repaired, so that every save warned again.
- Text declared as UTF-16, but without a byte order mark, ended `score` with a traceback.
- An unknown `--encoding` was accepted if an installed package registers a codec for every name.
- With two processes, the copy of a good state waited for a process that did not copy.
- A confident model of seven letters has higher single losses than a diverging one: a running mean of the loss is used.
- Kills after a random time never fell into a save: now every update saves, and the clock starts with the first save.
- SIGTERM during the reading of a text left an incomplete file of token ids in the cache.
- A killed process of a distributed training ended the others with tracebacks, and waiting processes ignored signals.
"""
"""Add an entry when a defect is found."""


def cpu_minutes() -> float:
    """Return the CPU time of all child processes that have ended, in minutes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) / 60


def main() -> None:
    """Run the tests and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tests", nargs="*", help="tests to run without writing the result file; all tests by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = Path(folder) / "tally"
        tally.touch()
        began = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-q", "-m", "torture", *arguments.tests]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, "CHARLM_TALLY": str(tally)})
        minutes = (time.monotonic() - began) / 60
        lines = tally.read_text(encoding="utf-8").splitlines()
    verdict = "All tests passed" if done.returncode == 0 else "NOT ALL TESTS PASSED"
    counts = "".join(f"- {line}\n" for line in lines)
    duration = f"{verdict} in {minutes:.1f} minutes, {cpu_minutes():.1f} minutes of CPU time."
    text = f"{INTRODUCTION}{counts}\n{duration}\n{DEFECTS_FOUND}"
    if arguments.tests:
        print(text)
    else:
        write_section("torture", "Torture", text, packages=("torch", "numpy", "safetensors", "click", "hypothesis"))
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
