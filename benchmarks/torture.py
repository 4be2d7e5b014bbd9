"""Counts what charlm survives: runs the tests of the marker `torture`, and writes down what they lived through.

python benchmarks/torture.py --out benchmarks/results/torture.md
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent

HEAD = """\
# Torture

What the tests behind the marker `torture` lived through: kill -9 at random moments, damaged files, random command
lines. Survived means: an orderly end or one line of error; no traceback, no case longer than 20 s, no more than
400 MB more memory over all cases of a kind; and after every kill, no damaged file.

"""


def main() -> None:
    """Run the tests, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "torture.md")
    parser.add_argument("tests", nargs="*", help="tests to run; all of the marker, if left out")
    given = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        tally = Path(folder) / "tally"
        tally.touch()
        began = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-q", "-m", "torture", *given.tests]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, "CHARLM_TALLY": str(tally)})
        seconds = time.monotonic() - began
        lines = tally.read_text(encoding="utf-8").splitlines()
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "safetensors", "click", "hypothesis"))
    text = HEAD + "".join(f"- {line}\n" for line in lines)
    text += f"\n{'All passed' if done.returncode == 0 else 'NOT ALL PASSED'}, in {seconds / 60:.1f} minutes.\n"
    text += f"\nCommit {commit.strip()}, Python {platform.python_version()}, {versions}, {platform.machine()}.\n"
    text += "Command: `python benchmarks/torture.py`\n"
    given.out.write_text(text, encoding="utf-8")
    print(text)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
