"""Number of threads of NumPy's linear algebra, which is fixed when NumPy is imported."""

import math
import os
from pathlib import Path

THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

BYTES_PER_THREAD = 1_500_000
"""Bytes of weights that make another thread worthwhile; fewer fit into the cache of one core."""

MAX_THREADS = 8
"""More threads than this wait for memory."""

MAX_ROWS = 8
"""Number of sequences above which more sequences no longer justify more threads."""


def limit_threads(threads: int | None, model: Path, rows: int = 1, *, apart: bool = False) -> int:
    """Set the number of threads that NumPy's linear algebra will use.

    Call this before NumPy is imported; therefore the size of the model file stands for the size of the model. Busy
    cores are not used for products that several threads share: waiting for a busy core was measured to be thirty
    times slower than using one thread. Variables that the user has set in the environment are respected.

    Args:
        threads: Number of threads, or None to choose it.
        model: The model file.
        rows: Number of sequences that are read in parallel.
        apart: Whether Python threads divide the sequences among them, so that each product uses one thread.

    Returns:
        The number of Python threads to use: 1 unless `apart`.
    """
    if threads is None:
        if any(variable in os.environ for variable in THREAD_VARIABLES):
            return 1
        limit = _num_cores() if apart else min(_num_free_cores(), MAX_THREADS)
        threads = max(1, min(limit, round(model.stat().st_size * min(rows, MAX_ROWS) / BYTES_PER_THREAD)))
    for variable in THREAD_VARIABLES:
        os.environ[variable] = "1" if apart else str(threads)
    return threads if apart else 1


def _num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _num_free_cores() -> int:
    """Return the number of cores minus the load of the last minute, at least 1."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return max(1, math.ceil(_num_cores() - load))
