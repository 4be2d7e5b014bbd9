"""Timing of functions. Each time is the shortest of several, which other programs on the machine disturb least."""

import time
from collections.abc import Callable

NUM_STRETCHES = 10
"""Number of stretches of calls that `best_microseconds` times."""


def best_seconds(work: Callable[[], object], calls: int, *, warm_up: bool = False) -> float:
    """Return the shortest time of several calls in seconds.

    Args:
        work: Called without arguments.
        calls: Number of timed calls.
        warm_up: Make one more call first, which is not timed.
    """
    if warm_up:
        work()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def best_microseconds(work: Callable[[], object], seconds: float = 0.5) -> float:
    """Return the time of one short call in microseconds: the mean over a stretch of calls, for the best stretch.

    Args:
        work: Called without arguments.
        seconds: Approximate time for all stretches.
    """
    work()
    calls = max(1, int(seconds / NUM_STRETCHES / best_seconds(work, 1)))

    def stretch() -> None:
        for _ in range(calls):
            work()

    return best_seconds(stretch, NUM_STRETCHES) / calls * 1e6
