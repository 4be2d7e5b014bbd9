"""Stopwatch that is robust against jumps of the clock."""

from collections.abc import Callable

MAX_GAP_SECONDS = 60.0
"""Maximum time between two readings that counts, in seconds. A longer time means that the computer was suspended or
that its clock was set."""


class Stopwatch:
    """Sum of the times between readings.

    A time above `MAX_GAP_SECONDS` counts as `MAX_GAP_SECONDS`. If the clock is set back, the time counts as 0.

    Args:
        clock: Function that returns the time in seconds.
        seconds: Initial value in seconds.
    """

    def __init__(self, clock: Callable[[], float], seconds: float = 0.0) -> None:
        self._clock = clock
        self._seconds = seconds
        self._before = clock()

    def read(self) -> float:
        """Return the number of seconds so far."""
        now = self._clock()
        self._seconds += min(max(now - self._before, 0.0), MAX_GAP_SECONDS)
        self._before = now
        return self._seconds

    def add(self, seconds: float) -> None:
        """Add time that passed earlier, in seconds, for instance before a training was resumed."""
        self._seconds += seconds
