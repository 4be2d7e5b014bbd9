"""Line at the bottom of a terminal that shows what a command is doing."""

import locale
import os
import sys
import time
from types import TracebackType
from typing import Self

SECONDS_BETWEEN_DRAWS = 0.1
"""Minimum time between two updates of the line, in seconds."""

DEFAULT_COLUMNS = 80
"""Width of a terminal that does not report its width."""

MIN_BAR_CELLS = 10
"""Minimum width of a progress bar in columns. Texts after it are left out first."""


class StatusLine:
    """Line on stderr that each new text overwrites, and that is removed at the end; a context manager.

    If stderr is not a terminal, nothing is written.

    Args:
        quiet: Whether to write nothing on a terminal either.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.is_shown = not quiet and sys.stderr.isatty()
        self._length = 0
        self._next_draw = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    @property
    def columns(self) -> int:
        """Number of columns that the line may have. The last column stays empty, so that the terminal does not wrap."""
        try:
            return max(1, os.get_terminal_size(sys.stderr.fileno()).columns or DEFAULT_COLUMNS) - 1
        except (OSError, ValueError):
            return DEFAULT_COLUMNS - 1

    def is_due(self) -> bool:
        """Return whether the line is shown and was not updated just now."""
        return self.is_shown and time.monotonic() >= self._next_draw

    def show(self, text: str) -> None:
        """Replace the line by a text, which is cut to the width of the terminal."""
        if self.is_shown:
            columns = self.columns
            text = text[:columns]
            sys.stderr.write(f"\r{text}{' ' * (min(self._length, columns) - len(text))}")
            sys.stderr.flush()
            self._length = len(text)
            self._next_draw = time.monotonic() + SECONDS_BETWEEN_DRAWS

    def show_if_due(self, text: str) -> None:
        """Replace the line by a text unless it was updated just now."""
        if self.is_due():
            self.show(text)

    def clear(self) -> None:
        """Remove the line, so that something else can be printed."""
        if self._length:
            self.show("")
            sys.stderr.write("\r")
            sys.stderr.flush()


def bar_text(fraction: float, parts: dict[str, int], columns: int) -> str:
    """Return a progress bar with texts after it.

    Args:
        fraction: Share that is done, from 0 to 1.
        parts: Texts by their rank. Texts with a high rank are left out if there is no space.
        columns: Number of columns to fill.
    """
    from tqdm import tqdm

    shown = list(parts)
    while len(shown) > 1 and columns - len("100%|| ") - len(", ".join(shown)) < MIN_BAR_CELLS:
        shown.remove(max(shown, key=lambda part: parts[part]))
    ascii_only = locale.getencoding().lower().replace("-", "") != "utf8"
    layout = "{percentage:3.0f}%|{bar}| {desc}"
    return tqdm.format_meter(
        fraction, 1.0, 0.0, ncols=columns, prefix=", ".join(shown), ascii=ascii_only, bar_format=layout
    )
