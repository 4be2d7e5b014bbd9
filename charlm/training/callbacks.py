"""Functions that a training calls to report its progress, and to ask whether to stop."""

from collections.abc import Callable
from dataclasses import dataclass

from charlm.training.progress import Progress


def _ignore(_: Progress | str) -> None:
    pass


def _never() -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Functions that the trainer calls. The default functions do nothing.

    Attributes:
        report: Called with the progress after every update, and after every validation.
        warn: Called with a message that the user should see at once.
        stop: Called after every update and several times during a validation. When it returns True, the trainer saves
            and ends.
    """

    report: Callable[[Progress], None] = _ignore
    warn: Callable[[str], None] = _ignore
    stop: Callable[[], bool] = _never
