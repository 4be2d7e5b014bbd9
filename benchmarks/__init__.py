"""Benchmarks. Each module is one benchmark: `python -m benchmarks.NAME`. Results go to `results/NAME.md`."""

import os
from pathlib import Path


def add_project_to_pythonpath() -> None:
    """Set PYTHONPATH so that Python programs started by a benchmark in another folder can import this project."""
    root = str(Path(__file__).parent.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
