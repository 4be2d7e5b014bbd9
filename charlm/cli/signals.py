"""Handlers of SIGINT and SIGTERM."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Raise SystemExit at SIGTERM within the context, so that temporary files are deleted.

    SIGINT raises KeyboardInterrupt anyway.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class StopSignals:
    """Context manager that records SIGINT and SIGTERM: the first signal asks for an orderly end.

    A second signal ends the process immediately.

    Attributes:
        number: Number of the signal that was received, or 0.
    """

    def __init__(self) -> None:
        self.number = 0

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        for other in self._before:  # the system handles the next signal, so that Python code cannot delay it
            signal.signal(other, signal.SIG_DFL)
