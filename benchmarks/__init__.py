"""Measurements, side by side in one run each. Run one with `python -m benchmarks.NAME`."""

import os
from pathlib import Path


def found_by_children() -> None:
    """Have the Python programs that this one starts find the project, whatever folder they run in."""
    root = str(Path(__file__).parent.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
