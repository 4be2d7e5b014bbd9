"""Counts what charlm survives: runs the tests of the marker `torture`, and writes down what they lived through.

python -m benchmarks.torture
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import write_section

ROOT = Path(__file__).parent.parent

HEAD = """\
What the tests behind the marker `torture` lived through: kill -9 at random moments, damaged files, random command
lines. Survived means: an orderly end or one line of error; no traceback, no case longer than 20 s, no more than
400 MB more memory over all cases of a kind; and after every kill, no damaged file.

"""


def main() -> None:
    """Run the tests, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tests", nargs="*", help="tests to run; all of the marker, if left out")
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
    text += f"\n{'All passed' if done.returncode == 0 else 'NOT ALL PASSED'}, in {seconds / 60:.1f} minutes."
    write_section("torture", "Torture", text, packages=("torch", "numpy", "safetensors", "click", "hypothesis"))
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
