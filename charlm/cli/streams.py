"""Standard streams of the process: text encoding, closed streams, and output that cannot be written."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from charlm.config import MAX_INPUT_CHARS
from charlm.errors import CorpusError
from charlm.text.printable import escape_unprintable_lines


@contextmanager
def standard_streams() -> Iterator[None]:
    """Prepare the standard streams, and write all output at the end; see `output_errors`."""
    _replace_closed_streams()
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
    except OSError as error:
        if error.filename is not None:
            raise
        _discard_output()
        if error.errno == errno.EPIPE:
            sys.exit(0)
        with suppress(OSError):
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
    """Open streams for descriptors that were closed when the process started; using them is an `OSError`.

    A file that is opened later would otherwise get such a descriptor, and output would be written to that file.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # Reading what is open for writing fails as reading a closed stream does, and the other way round.
            flags = os.O_WRONLY if name == "stdin" else os.O_RDONLY
            opened = os.open(os.devnull, flags)
            assert opened == descriptor, "the lowest free descriptor is taken"
            setattr(sys, name, open(descriptor, "r" if name == "stdin" else "w", closefd=False))  # noqa: SIM115


def _discard_output() -> None:
    """Send standard output nowhere, because Python flushes it again at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
