"""Standard streams of the process: text encoding, closed streams, and output that cannot be written."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from charlm.config import MAX_INPUT_CHARS
from charlm.errors import CorpusError
from charlm.text.printable import escape_unprintable_lines

STREAMS = ("stdin", "stdout", "stderr")
"""Names of the standard streams, in the order of their descriptors."""


class OutputError(OSError):
    """Standard output cannot be written."""


class _Wrapper(io.TextIOWrapper):
    """Text stream that takes the place of another one.

    Args:
        stream: The other one.
    """

    def __init__(self, stream: io.TextIOWrapper) -> None:
        super().__init__(
            stream.buffer,
            encoding="utf-8",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        self._replaced = stream  # deleting it would close the buffer


class _Results(_Wrapper):
    """Standard output, whose failures differ in kind from those of other files."""

    def write(self, text: str) -> int:
        """Write text."""
        try:
            return super().write(text)
        except OSError as error:
            raise OutputError(error.errno, error.strerror) from None

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            super().flush()
        except OSError as error:
            raise OutputError(error.errno, error.strerror) from None


class _Messages(_Wrapper):
    """Standard error. Messages that cannot be written are lost, because a command can do its work without them."""

    def write(self, text: str) -> int:
        """Write text."""
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        with suppress(OSError):
            super().flush()


@contextmanager
def standard_streams() -> Iterator[None]:
    """Prepare the standard streams, and write all output at the end; see `output_errors`."""
    _replace_closed_streams()
    for name, kind in (("stdout", _Results), ("stderr", _Messages)):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and _descriptor(stream) == STREAMS.index(name):
            setattr(sys, name, kind(stream))
    for stream in (sys.stdout, sys.stderr, sys.stdin):
        # Text passes unchanged in every locale: as UTF-8, without translation of newlines or of invalid bytes.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")
    with output_errors():
        try:
            yield
        finally:
            sys.stdout.flush()


@contextmanager
def output_errors() -> Iterator[None]:
    """Turn a failure to write standard output into one line on stderr and an exit code.

    If the reader of standard output has closed it, the process ends quietly with code 0, as after `head`.

    Raises:
        SystemExit: With code 1 if standard output cannot be written, for example because a disk is full.
    """
    try:
        yield
    except OutputError as error:
        _discard_output()
        if error.errno == errno.EPIPE:
            sys.exit(0)
        sys.stderr.write(f"Error: standard output: {(error.strerror or str(error)).lower()}\n")
        sys.stderr.flush()
        sys.exit(1)


def write_text(text: str) -> None:
    """Write text from a model or a file to standard output: unchanged, but escaped if that is a terminal."""
    sys.stdout.write(escape_unprintable_lines(text) if sys.stdout.isatty() else text)


def stdin_lines(max_input: int = MAX_INPUT_CHARS, *, in_all: bool = False) -> Iterator[str]:
    """Yield the lines of standard input without their line ends: a newline, and a carriage return directly before it.

    Args:
        max_input: Maximum length of a line in characters.
        in_all: Whether the maximum is that of all lines together.

    Raises:
        CorpusError: If standard input cannot be read, or is longer.
    """
    chars_left = max_input
    try:
        while line := sys.stdin.readline(chars_left + 1):
            if len(line) > chars_left:
                raise CorpusError(
                    f"standard input: longer than {max_input:,} characters, which is the limit for a text that must be "
                    "in memory as a whole; set max_input to allow more",
                    fields=["max_input"],
                )
            chars_left -= len(line) * in_all
            yield line.removesuffix("\r\n") if line.endswith("\r\n") else line.removesuffix("\n")
    except OSError as error:
        raise CorpusError(f"standard input: cannot be read ({error.strerror})") from None


def _replace_closed_streams() -> None:
    """Open streams for descriptors that were closed when the process started.

    Reading and writing results is an `OSError`. Messages are discarded.

    A file that is opened later would otherwise get such a descriptor, and output would be written to that file.
    """
    for descriptor, name in enumerate(STREAMS):
        if getattr(sys, name) is None:
            # Reading what is open for writing fails as reading a closed stream does, and the other way round.
            flags = os.O_RDONLY if name == "stdout" else os.O_WRONLY
            opened = os.open(os.devnull, flags)
            assert opened == descriptor, "the lowest free descriptor is taken"
            setattr(sys, name, open(descriptor, "r" if name == "stdin" else "w", closefd=False))  # noqa: SIM115


def _descriptor(stream: io.TextIOWrapper) -> int | None:
    """Return the descriptor of a stream; None for a stream in memory, as in tests."""
    with suppress(OSError, ValueError):
        return stream.fileno()
    return None


def _discard_output() -> None:
    """Send standard output nowhere, because Python flushes it again at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
