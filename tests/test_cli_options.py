import os
from pathlib import Path

import pytest

from charlm.cli.options import THREAD_VARIABLES, limit_threads

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
    limit_threads(asked, path, rows)
    assert os.environ["OPENBLAS_NUM_THREADS"] == threads
