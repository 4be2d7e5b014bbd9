import os
import subprocess
import sys
from pathlib import Path

import pytest

from charlm.cli.threads import THREAD_VARIABLES, limit_threads

MEGABYTE = 1_000_000


@pytest.mark.parametrize(
    ("requested", "megabytes", "num_sequences", "load", "environment", "expected"),
    [
        (None, 1, 1, 0.0, {}, "1"),  # fits into the cache of one core
        (None, 12, 1, 0.0, {}, "8"),
        (None, 12, 1, 14.5, {}, "2"),  # 16 cores, 14.5 of them busy
        (None, 12, 1, 99.0, {}, "1"),
        (None, 1, 128, 0.0, {}, "5"),  # many sequences justify more threads
        (3, 1, 1, 99.0, {"OMP_NUM_THREADS": "5"}, "3"),
        (None, 12, 1, 0.0, {"OPENBLAS_NUM_THREADS": "5"}, "5"),
    ],
)
def test_number_of_threads_depends_on_model_and_machine(
    requested: int | None,
    megabytes: int,
    num_sequences: int,
    load: float,
    environment: dict[str, str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in THREAD_VARIABLES:
        monkeypatch.setenv(variable, "")  # so that the original value is restored after the test
        monkeypatch.delenv(variable)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    path = tmp_path / "model"
    path.write_bytes(b"x" * (megabytes * MEGABYTE))
    assert limit_threads(requested, path, num_sequences) == 1
    assert os.environ["OPENBLAS_NUM_THREADS"] == expected


@pytest.mark.parametrize(("requested", "load", "expected"), [(None, 0.0, 16), (None, 99.0, 16), (3, 0.0, 3)])
def test_independent_threads_use_all_cores(
    requested: int | None, load: float, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in THREAD_VARIABLES:
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    path = tmp_path / "model"
    path.write_bytes(b"x" * (12 * MEGABYTE))
    assert limit_threads(requested, path, 128, independent=True) == expected
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert limit_threads(None, path, 128, independent=True) == 1


PRINT_THREADS = """
import importlib.abc, os, sys
class PrintThreads(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            print("threads", os.environ.get("OPENBLAS_NUM_THREADS"), file=sys.stderr)
sys.meta_path.insert(0, PrintThreads())
from charlm.cli import main
main()
"""
"""Runs a command line and prints the number of threads at the moment when NumPy is imported."""


@pytest.mark.parametrize(
    ("command", "threads"),
    [
        (["score", "--threads", "3"], "1"),  # Python threads divide the lines among them
        (["score", "--total", "--threads", "3"], "3"),
        (["sample", "-n", "1", "--threads", "3"], "3"),
        (["next"], "1"),
    ],
)
def test_number_of_threads_is_set_before_numpy_is_imported(command: list[str], threads: str, model_file: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", PRINT_THREADS, *command, "-m", str(model_file)],
        input="To be\n",
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert f"threads {threads}\n" in done.stderr
