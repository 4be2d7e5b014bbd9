"""Atomic writes: a file is written completely, or stays as it was."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

MAX_PREFIX_CHARS = 40
"""Maximum number of characters of a file's name in the name of its temporary file. Names are limited to 255 bytes."""


def temporary_prefix(path: Path) -> str:
    """Return the prefix of the names of temporary files that become `path` when they are complete."""
    return f".{path.name[:MAX_PREFIX_CHARS]}."


@contextmanager
def atomic_write(path: Path, *, keep: Path | None = None) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces `path` at the end of the context, if no exception occurs.

    The content is written to a temporary file in the same folder, flushed to disk, and renamed. An existing file keeps
    its permissions. A symbolic link stays, and the file that it points to is replaced. What is not a regular file, such
    as a named pipe or /dev/stdout, is written directly.

    Args:
        path: The file to write.
        keep: New name for the file that was at `path` before; None to replace that file.

    Yields:
        The open temporary file, for bytes.

    Raises:
        OSError: If the file cannot be written. The file at `path` is unchanged, and the temporary file is removed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_write(Path(folder, "notes.txt")) as file:
        ...         _ = file.write(b"complete")
        ...     Path(folder, "notes.txt").read_bytes()
        b'complete'
    """
    mode = _existing_mode(path)
    if mode is not None and not stat.S_ISREG(mode):
        with path.open("wb") as file:
            yield file
        return
    path = path.resolve() if path.is_symlink() else path
    temporary = path.with_name(f"{temporary_prefix(path)}{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            with suppress(OSError):  # the file system may have no permissions
                temporary.chmod(stat.S_IMODE(mode))
        if keep is not None and mode is not None:
            os.replace(path, keep)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _existing_mode(path: Path) -> int | None:
    """Return type and permissions of a file; None if it does not exist."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _sync_folder(folder: Path) -> None:
    """Flush a folder to disk, so that a rename in it survives a power failure. Some systems do not offer this."""
    if os.name == "posix":
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
