"""Token ids of a text: in memory if the text is short, otherwise in a memory-mapped file of the user's cache.

A cache file is named after the hashes of the text and the tokenizer. Every training on the same text with the same
tokenizer uses the same file. It is written under a temporary name and then renamed. Therefore, several processes may
write it at the same time. A file consists of a line of JSON, padding up to `HEADER_BYTES`, and the ids.

The size of the cache is limited. After a training has opened its files, the least recently used ones are removed. The
modification time of a file is the time of its last use.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import time
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from charlm.atomic import atomic_write
from charlm.errors import CorpusError
from charlm.text.corpus import CorpusPart, CorpusReader
from charlm.text.ids import Ids, smallest_dtype
from charlm.text.items import ItemText
from charlm.text.tokenizer import Tokenizer

EncodableText = CorpusReader | CorpusPart | ItemText
"""Texts that can be encoded."""

HEADER_BYTES = 4096
"""Number of bytes before the ids. It is the size of a memory page, so that the ids are aligned."""

VERSION = 1
"""Version of the file format. It is part of the hash in a file's name."""

CHECK_BYTES = 1 << 24
"""Number of bytes read at a time when a file is checked."""

MAX_CACHE_BYTES, MAX_CACHE_SHARE = 20 * 10**9, 0.1
"""Maximum size of the cache in bytes, and as a share of the disk. The smaller limit applies."""

OWN_FILE = re.compile(r"[0-9a-f]{32}\.ids|\.[0-9a-f]{32}\.ids\.[0-9a-f]{8}|\..{8}\.ids")
"""Names of complete and of temporary cache files, the last as earlier versions named them. Other files are kept."""

ABANDONED_SECONDS = 3600
"""Age in seconds above which a temporary file counts as abandoned by a process that was killed."""


def cache_folder() -> Path:
    """Return charlm's folder in the user's cache folder; in the working folder if the user has no home."""
    try:
        home = Path.home()
    except RuntimeError:  # as in a container that runs with the number of an unknown user
        home = Path()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home)) / "charlm" / "cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "charlm"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "charlm"


def encode_texts(texts: EncodableText, tokenizer: Tokenizer, folder: Path) -> tuple[Ids, Path | None]:
    """Return the ids of a corpus.

    Args:
        texts: The corpus, a part of it, or the items of a list, after the first pass.
        tokenizer: Tokenizer that encodes the text.
        folder: Folder of the cache. It is not used if the text is in memory.

    Returns:
        The ids, (number of tokens,), and the cache file that contains them, if any.

    Raises:
        CorpusError: If the cache cannot be written.
    """
    pieces = texts.blocks if tokenizer.cut_anywhere else texts.pieces
    if texts.in_memory:
        parts = [tokenizer.encode(piece) for piece in pieces()] or [tokenizer.encode("")]
        return (parts[0] if len(parts) == 1 else np.concatenate(parts)), None
    key = {"version": VERSION, "text": texts.sha256, "tokenizer": _hash(tokenizer)}
    path = folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.ids"
    dtype = np.dtype(smallest_dtype(tokenizer.vocab_size)).newbyteorder("<")
    if _is_valid(path, key, dtype):
        with suppress(OSError):  # the file may belong to another user, or have been removed
            os.utime(path)
    else:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            _write(path, (tokenizer.encode(piece).astype(dtype, copy=False) for piece in pieces()), key)
        except OSError as error:
            raise CorpusError(
                f"cannot write the token ids of the text ({error.strerror}): set cache to a folder other than {folder}",
                fields=["cache"],
            ) from None
    return np.asarray(np.memmap(path, dtype=dtype, mode="r", offset=HEADER_BYTES)), path


def prune(folder: Path, keep: Collection[Path]) -> list[str]:
    """Remove the least recently used files from the cache until it is within its size limit.

    Abandoned temporary files are always removed. On systems that allow it, files that another training has mapped are
    removed too. That training can still read them.

    Args:
        folder: Folder of the cache.
        keep: Files that are never removed.

    Returns:
        A note for the user if files were removed; otherwise an empty list.
    """
    files = [(path, stat) for path in folder.iterdir() if OWN_FILE.fullmatch(path.name) and (stat := _stat(path))]
    limit = min(MAX_CACHE_BYTES, int(MAX_CACHE_SHARE * shutil.disk_usage(folder).total))
    excess = sum(stat.st_size for _, stat in files) - limit
    num_removed = bytes_removed = 0
    for path, stat in sorted(files, key=lambda file: file[1].st_mtime_ns):
        if path.name.startswith("."):  # a temporary file
            removable = time.time() - stat.st_mtime > ABANDONED_SECONDS
        else:
            removable = bytes_removed < excess and path not in keep
        if removable:
            with suppress(OSError):
                path.unlink()
                num_removed, bytes_removed = num_removed + 1, bytes_removed + stat.st_size
    if not num_removed:
        return []
    return [
        f"removed {num_removed} file(s) from the cache {folder} ({bytes_removed / 1e9:.1f} GB), least recently used "
        f"first: its limit is {limit / 1e9:.0f} GB"
    ]


def _stat(path: Path) -> os.stat_result | None:
    """Return the status of a file, or None if another process has removed it."""
    try:
        return path.stat()
    except OSError:
        return None


def _hash(tokenizer: Tokenizer) -> str:
    return hashlib.sha256(json.dumps(tokenizer.to_dict()).encode()).hexdigest()


def _write(path: Path, parts: Iterator[Ids], key: dict[str, Any]) -> None:
    """Write a cache file."""
    count = crc = 0
    with atomic_write(path) as file:
        file.write(b" " * HEADER_BYTES)
        for ids in parts:
            file.write(ids.data)
            count += len(ids)
            crc = zlib.crc32(ids.data, crc)
        file.seek(0)
        file.write(json.dumps({**key, "count": count, "crc32": crc}).encode())


def _is_valid(path: Path, key: dict[str, Any], dtype: np.dtype[Any]) -> bool:
    """Return True if a file has the ids of this text and tokenizer, and the right length and checksum."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(HEADER_BYTES))
            count, expected_crc = header.pop("count"), header.pop("crc32")
            if header != key or path.stat().st_size != HEADER_BYTES + count * dtype.itemsize:
                return False
            crc = 0
            while block := file.read(CHECK_BYTES):
                crc = zlib.crc32(block, crc)
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False
    return bool(crc == expected_crc)
