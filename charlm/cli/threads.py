"""Choice of the number of threads of NumPy's linear algebra, which is fixed when NumPy is imported."""

import math
import os
import re
from contextlib import suppress
from pathlib import Path

THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Environment variables from which OpenBLAS, MKL, OpenMP and Accelerate read their number of threads."""

BYTES_PER_THREAD = 1_500_000
"""Number of bytes of weights per thread. Fewer bytes fit into the cache of one core, so that another thread is no
faster."""

MAX_THREADS = 8
"""Maximum number of threads chosen automatically for shared products. More threads wait for memory."""

MAX_COUNTED_SEQUENCES = 8
"""Number of parallel sequences above which further sequences no longer justify more threads."""


MAX_HEADER_BYTES = 32 * 2**20
"""Maximum length of the header of a model file in bytes."""

NGRAM_OFFSETS = re.compile(rb'"ngram/[^"]*":\{[^{}]*"data_offsets":\[(\d{1,15}),(\d{1,15})\]')
"""Begin and end of each tensor of an n-gram model, as the header of a model file has them."""


def limit_threads(threads: int | None, model: Path, num_sequences: int = 1, *, independent: bool = False) -> int:
    """Set the number of threads that NumPy's linear algebra will use.

    Call this before NumPy is imported. Therefore, the size of the model is estimated from the size of its file. Busy
    cores are not used for products that several threads share, because waiting for a busy core takes thirty times as
    long as using one thread (measured). Environment variables that the user has set are not changed unless `threads` is
    given.

    Args:
        threads: Number of threads, or None to choose it automatically.
        model: The model file.
        num_sequences: Number of sequences that are read in parallel.
        independent: Whether Python threads divide the sequences among them, so that each product uses one thread.

    Returns:
        The number of Python threads to use: 1 unless `independent`.
    """
    if threads is None:
        if any(variable in os.environ for variable in THREAD_VARIABLES):
            return 1
        limit = _num_cores() if independent else min(_num_free_cores(), MAX_THREADS)
        num_bytes = _network_bytes(model) * min(num_sequences, MAX_COUNTED_SEQUENCES)
        threads = max(1, min(limit, round(num_bytes / BYTES_PER_THREAD)))
    for variable in THREAD_VARIABLES:
        os.environ[variable] = "1" if independent else str(threads)
    return threads if independent else 1


def _network_bytes(model: Path) -> int:
    """Return the size of a model file without its n-gram model, whose weights are no factors of products.

    A file that is damaged is found later, when it is read.
    """
    num_bytes, header = model.stat().st_size, b""
    with suppress(OSError), model.open("rb") as file:
        header = file.read(min(int.from_bytes(file.read(8), "little"), MAX_HEADER_BYTES))
    for begin, end in NGRAM_OFFSETS.findall(header):
        num_bytes -= max(0, int(end) - int(begin))
    return max(0, num_bytes)


def _num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _num_free_cores() -> int:
    """Return the number of cores minus the load of the last minute, at least 1."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return max(1, math.ceil(_num_cores() - load))
