import os
import subprocess
import sys
from pathlib import Path

import pytest

from charlm.cli.threads import THREAD_VARIABLES, limit_threads

MEGABYTE = 1_000_000


@pytest.mark.parametrize(
    ("asked", "megabytes", "rows", "load", "environment", "threads"),
    [
        (None, 1, 1, 0.0, {}, "1"),  # fits one core's cache
        (None, 12, 1, 0.0, {}, "8"),
        (None, 12, 1, 14.5, {}, "2"),  # 16 cores, most of them busy
        (None, 12, 1, 99.0, {}, "1"),
        (None, 1, 128, 0.0, {}, "5"),  # many rows are worth sharing out
        (3, 1, 1, 99.0, {"OMP_NUM_THREADS": "5"}, "3"),
        (None, 12, 1, 0.0, {"OPENBLAS_NUM_THREADS": "5"}, "5"),
    ],
)
def test_threads_suit_the_model_and_the_machine(
    asked: int | None,
    megabytes: int,
    rows: int,
    load: float,
    environment: dict[str, str],
    threads: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in THREAD_VARIABLES:
        monkeypatch.setenv(variable, "")  # so that it is put back afterwards
        monkeypatch.delenv(variable)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    path = tmp_path / "model"
    path.write_bytes(b"x" * (megabytes * MEGABYTE))
    assert limit_threads(asked, path, rows) == 1
    assert os.environ["OPENBLAS_NUM_THREADS"] == threads


@pytest.mark.parametrize(("asked", "load", "threads"), [(None, 0.0, 16), (None, 99.0, 16), (3, 0.0, 3)])
def test_threads_that_do_not_wait_for_each_other_take_all_cores(
    asked: int | None, load: float, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in THREAD_VARIABLES:
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    path = tmp_path / "model"
    path.write_bytes(b"x" * (12 * MEGABYTE))
    assert limit_threads(asked, path, 128, apart=True) == threads
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert limit_threads(None, path, 128, apart=True) == 1


LOOKS_AT_THREADS = """
import importlib.abc, os, sys
class Look(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            print("threads", os.environ.get("OPENBLAS_NUM_THREADS"), file=sys.stderr)
sys.meta_path.insert(0, Look())
from charlm.cli import main
main()
"""


@pytest.mark.parametrize(
    ("command", "threads"),
    [
        (["score", "--threads", "3"], "1"),  # which threads of Python share
        (["score", "--total", "--threads", "3"], "3"),
        (["sample", "-n", "1", "--threads", "3"], "3"),
        (["next"], "1"),
    ],
)
def test_threads_are_counted_before_numpy_is_there(command: list[str], threads: str, model_file: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", LOOKS_AT_THREADS, *command, "-m", str(model_file)],
        input="To be\n",
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert f"threads {threads}\n" in done.stderr
