"""Reader of the bytes of a file that may be compressed, or standard input."""

import gzip
import lzma
import shutil
import sys
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from charlm.errors import VectorsError
from charlm.text.sources import STDIN

BLOCK_BYTES = 1 << 18
"""Number of bytes read at a time. Larger blocks do not fit into the processor's cache."""

GZIP_MARK = b"\x1f\x8b"
"""First bytes of gzip's format."""

DAMAGED = (
    *(EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile),
    *(NotImplementedError, RuntimeError, ValueError),  # from zipfile, if an archive is encrypted or inconsistent
)
"""Exceptions that reading a damaged .gz or .zip file raises."""


class PackedFile:
    """A plain, .gz or .zip file, which can be read any number of times.

    Args:
        path: The file. A .zip file contains one file. `-` is standard input, plain or gzip, which is copied to a
            temporary file.

    Attributes:
        path: As given.
        name: Name for messages.

    Raises:
        VectorsError: If standard input cannot be copied.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._copy = _copy_of_stdin() if str(path) == STDIN else None
        if self._copy is not None:
            weakref.finalize(self, self._copy.close)
        self.name = "standard input" if self._copy else str(path)

    def chunks(self) -> Generator[bytes, None, None]:
        """Read the file from its beginning, in chunks of up to `BLOCK_BYTES` bytes.

        Raises:
            VectorsError: If the file is missing, unreadable or damaged.
        """
        try:
            with ExitStack() as stack:
                file = self._open(stack)
                while data := file.read(BLOCK_BYTES):
                    yield data
        except DAMAGED as error:
            raise VectorsError(f"{self.name}: not a valid {self.path.suffix[1:] or 'gz'} file ({error})") from None
        except OSError as error:
            raise VectorsError(f"{self.name}: cannot be read ({error.strerror or error})") from None

    def _open(self, stack: ExitStack) -> Any:  # noqa: ANN401 - three readers without a common type
        if self._copy is not None:
            self._copy.seek(0)
            packed = self._copy.read(len(GZIP_MARK)) == GZIP_MARK
            self._copy.seek(0)
            return stack.enter_context(gzip.open(self._copy)) if packed else self._copy
        if self.path.suffix == ".gz":
            return stack.enter_context(gzip.open(self.path))
        if self.path.suffix != ".zip":
            return stack.enter_context(self.path.open("rb", buffering=0))
        archive = stack.enter_context(zipfile.ZipFile(self.path))
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if len(names) != 1:
            content = ", ".join(names) or "no file"
            raise VectorsError(f"{self.path}: contains {content}; unpack it and give one file")
        return stack.enter_context(archive.open(names[0]))


def _copy_of_stdin() -> BinaryIO:
    """Copy standard input to a temporary file, so that it can be read again."""
    with ExitStack() as stack:
        try:
            copy = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(sys.stdin.buffer, copy)
        except OSError as error:
            raise VectorsError(f"standard input: cannot be copied to a temporary file ({error.strerror})") from None
        stack.pop_all()  # the object that holds the file closes it
    return copy
