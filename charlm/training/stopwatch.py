"""Stopwatch that is robust against jumps of the clock."""

from collections.abc import Callable

MAX_GAP_SECONDS = 60.0
"""Maximum number of seconds that count between two readings. More means that the computer slept or its clock was
set."""


class Stopwatch:
    """Sum of the times between readings. A longer gap counts as `MAX_GAP_SECONDS`, a step back of the clock as nothing.

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
        """Add seconds that passed before, for instance before a training was resumed."""
        self._seconds += seconds
