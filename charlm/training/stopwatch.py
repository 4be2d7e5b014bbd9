"""Measures the time that a training takes, whatever happens to the clock."""

from collections.abc import Callable

MAX_GAP = 60.0
"""Seconds. A longer time between two readings is no work: the machine slept, or its clock was set."""


class Stopwatch:
    """Adds up the time between its readings; a gap counts `MAX_GAP` at most, and a step back nothing.

    Args:
        clock: The time in seconds.
        seconds: Where to begin.
    """

    def __init__(self, clock: Callable[[], float], seconds: float = 0.0) -> None:
        self._clock = clock
        self._seconds = seconds
        self._before = clock()

    def read(self) -> float:
        """The seconds worked."""
        now = self._clock()
        self._seconds += min(max(now - self._before, 0.0), MAX_GAP)
        self._before = now
        return self._seconds

    def add(self, seconds: float) -> None:
        """Count time that was worked before."""
        self._seconds += seconds
