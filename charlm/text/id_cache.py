"""Turns a text into ids: in memory if it is short, otherwise in a memory-mapped file of the user's cache.

A file of the cache is named after the hash of the text and of the tokenizer, so that it serves every training on
the same text. It is written beside its place and renamed, so that two processes may make it at once. Its layout:
a line of JSON, blanks up to `HEADER` bytes, and the ids.

The cache keeps within a bound: what was used longest ago goes, when a training has taken what it needs. A file's time
of modification is that of its last use.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from charlm.errors import CorpusError
from charlm.text.corpus import CorpusPart, CorpusReader
from charlm.text.ids import Ids, smallest_dtype
from charlm.text.tokenizer import Tokenizer

HEADER = 4096
"""Bytes before the ids: a page, so that they are aligned."""

VERSION = 1

CHECK_BYTES = 1 << 24
"""Read at a time in checking a file."""

CACHE_BYTES, CACHE_SHARE = 20 * 10**9, 0.1
"""The cache holds no more than so many bytes, and no more than this share of its disk."""

OWN_FILE = re.compile(r"[0-9a-f]{32}\.ids|\..{8}\.ids")
"""Names that this module gives: of files of the cache, and of those that are being written. No others are removed."""

ABANDONED_SECONDS = 3600
"""A file that is being written and has not grown for so long was left behind by a process that was killed."""


def cache_folder() -> Path:
    """Where this system keeps what programs can make again."""
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home)) / "charlm" / "cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "charlm"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "charlm"


def encode_texts(texts: CorpusReader | CorpusPart, tokenizer: Tokenizer, folder: Path) -> tuple[Ids, Path | None]:
    """The ids of all texts, which have been read once.

    Args:
        texts: The texts.
        tokenizer: Cuts them.
        folder: Of the cache; left alone if the texts are in memory.

    Returns:
        The ids, (N,), and the file that they lie in, if they lie in one.

    Raises:
        CorpusError: If the cache cannot be written.
    """
    pieces = texts.blocks if tokenizer.cut_anywhere else texts.pieces
    if texts.in_memory:
        parts = [tokenizer.encode(piece) for piece in pieces()] or [tokenizer.encode("")]
        return (parts[0] if len(parts) == 1 else np.concatenate(parts)), None
    kind = {"version": VERSION, "text": texts.sha256, "tokenizer": _hash(tokenizer)}
    path = folder / f"{hashlib.sha256(json.dumps(kind).encode()).hexdigest()[:32]}.ids"
    dtype = np.dtype(smallest_dtype(tokenizer.vocab_size)).newbyteorder("<")
    if _is_sound(path, kind, dtype):
        with suppress(OSError):  # it may be another user's, or be gone
            os.utime(path)
    else:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            _write(path, (tokenizer.encode(piece).astype(dtype, copy=False) for piece in pieces()), kind)
        except OSError as error:
            raise CorpusError(
                f"{folder}: no room for the ids of a long text ({error.strerror}); give another folder with --cache"
            ) from None
    return np.asarray(np.memmap(path, dtype=dtype, mode="r", offset=HEADER)), path


def prune(folder: Path, keep: Collection[Path]) -> list[str]:
    """Remove from the cache what was used longest ago, till it is within its bound.

    A file that another training has mapped lives on for it where the system allows this to be removed at all.

    Args:
        folder: Of the cache.
        keep: Files that stay, whatever their size.

    Returns:
        What its user should know: nothing, or a line that says what has been removed.
    """
    files = [(path, found) for path in folder.iterdir() if OWN_FILE.fullmatch(path.name) and (found := _stat(path))]
    bound = min(CACHE_BYTES, int(CACHE_SHARE * shutil.disk_usage(folder).total))
    total, removed, size = sum(found.st_size for _, found in files), 0, 0
    for path, found in sorted(files, key=lambda file: file[1].st_mtime_ns):
        being_written = path.name.startswith(".")
        abandoned = being_written and time.time() - found.st_mtime > ABANDONED_SECONDS
        if abandoned or (total - size > bound and not being_written and path not in keep):
            with suppress(OSError):
                path.unlink()
                removed, size = removed + 1, size + found.st_size
    if not removed:
        return []
    return [
        f"removed {removed} file(s) from {folder}, {size / 1e9:.1f} GB, those used longest ago: it holds no more than "
        f"{bound / 1e9:.0f} GB"
    ]


def _stat(path: Path) -> os.stat_result | None:
    """What the system knows of a file; None if it is gone, as another training may have removed it."""
    try:
        return path.stat()
    except OSError:
        return None


def _hash(tokenizer: Tokenizer) -> str:
    return hashlib.sha256(json.dumps(tokenizer.to_dict()).encode()).hexdigest()


def _write(path: Path, parts: Iterator[Ids], kind: dict[str, Any]) -> None:
    count = crc = 0
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".ids", delete=False) as file:
        try:
            file.write(b" " * HEADER)
            for ids in parts:
                file.write(ids.data)
                count += len(ids)
                crc = zlib.crc32(ids.data, crc)
            file.seek(0)
            file.write(json.dumps({**kind, "count": count, "crc32": crc}).encode())
            file.close()
            os.replace(file.name, path)
        except BaseException:
            file.close()
            os.unlink(file.name)
            raise


def _is_sound(path: Path, kind: dict[str, Any], dtype: np.dtype[Any]) -> bool:
    """Whether the file is there, of these texts and this tokenizer, and whole to the last byte."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(HEADER))
            count, crc = header.pop("count"), header.pop("crc32")
            if header != kind or path.stat().st_size != HEADER + count * dtype.itemsize:
                return False
            found = 0
            while block := file.read(CHECK_BYTES):
                found = zlib.crc32(block, found)
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False
    return bool(found == crc)
