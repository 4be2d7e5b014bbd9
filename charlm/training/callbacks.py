"""Functions through which a training reports to its caller, and by which the caller ends it."""

from collections.abc import Callable
from dataclasses import dataclass

from charlm.training.progress import Progress


def _ignore(_: Progress | str) -> None:
    """Do nothing."""


def _never() -> bool:
    """Return False."""
    return False


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Functions that the trainer calls. By default they do nothing.

    Attributes:
        report: Called with the progress after every update, and after every validation.
        warn: Called with a message that the user should see at once.
        stop: Called after every update and several times during a validation. When it returns True, the trainer saves
            and ends.
    """

    report: Callable[[Progress], None] = _ignore
    warn: Callable[[str], None] = _ignore
    stop: Callable[[], bool] = _never
