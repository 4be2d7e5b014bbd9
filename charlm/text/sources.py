"""Sources of text: files, folders, glob patterns, .gz files, standard input and the named corpora.

Text is read in blocks, because it may be larger than memory.
"""

import difflib
import glob
import gzip
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from charlm.errors import CorpusError
from charlm.text.decoder import Decoding, TextDecoder
from charlm.text.named_corpora import NAMED_CORPORA

STDIN = "-"
"""Name of standard input among the texts."""

READ_BYTES = 1 << 16
"""Maximum number of bytes read at a time. A block stays in the processor's cache until its text is processed."""


@dataclass(frozen=True)
class Source:
    """One text that can be read.

    Attributes:
        name: File name, name of a named corpus, or `-`.
        read: Function that returns the text in blocks. Its argument is the maximum number of bytes read at a time.
        rereadable: Whether the text can be read more than once.
    """

    name: str
    read: Callable[[int], Iterator[str]]
    rereadable: bool = True


def open_texts(spec: str, decoding: Decoding) -> Iterator[Source]:
    """Find the texts that a specification names, without reading them.

    Args:
        spec: A file, a folder (all text files below it), a glob pattern, `-` for standard input, or a named corpus.
            A file takes precedence over a corpus of the same name.
        decoding: Rules by which bytes become characters.

    Yields:
        At least one source.

    Raises:
        CorpusError: If there is no such text.
    """
    if "\0" in spec:
        raise CorpusError(f"{spec}: not a valid file name (it contains a NUL character)")
    path = Path(spec)
    if spec == STDIN:
        yield _stdin_source(decoding)
    elif _test_path(path.is_dir):
        yield from _folder_sources(path, decoding)
    elif _test_path(path.exists):
        yield _file_source(path, spec, decoding)
    elif matches := sorted(glob.glob(spec, recursive=True)):
        for match in matches:
            yield from open_texts(match, decoding)
    elif spec in NAMED_CORPORA:
        yield Source(spec, lambda block_bytes: iter([NAMED_CORPORA[spec].load()]))
    else:
        raise CorpusError(f"{spec}: no such file, folder or named corpus; {_suggestion(spec)}")


def read_named(name: str) -> str:
    """Return the text of a named corpus.

    Raises:
        CorpusError: If there is no corpus of this name, or its data is not installed.
    """
    if name not in NAMED_CORPORA:
        raise CorpusError(f"{name}: no such named corpus; {_suggestion(name)}")
    return NAMED_CORPORA[name].load()


def read_block(file: BinaryIO, name: str, size: int) -> bytes:
    """Return the bytes that are available, up to `size`, waiting for at least one; no bytes at the end of the file.

    Raises:
        CorpusError: If the file cannot be read or decompressed. The message begins with `name`.
    """
    try:
        return file.read1(size)  # type: ignore[attr-defined,no-any-return]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorpusError(f"{name}: not a valid gzip file ({error})") from None
    except OSError as error:
        raise CorpusError(f"{name}: cannot be read ({error.strerror})") from None


def short_name(spec: str) -> str:
    """Return a short name of a text that is valid as a folder name."""
    if spec == STDIN:
        return "stdin"
    name = Path(spec).resolve().name.split(".")[0]
    return "".join(char if char.isalnum() or char in "-_" else "-" for char in name).strip("-") or "text"


def _stdin_source(decoding: Decoding) -> Source:
    def read(block_bytes: int) -> Iterator[str]:
        return _decode_blocks(sys.stdin.buffer, TextDecoder("standard input", decoding), block_bytes)

    return Source(STDIN, read, rereadable=False)


def _file_source(path: Path, name: str, decoding: Decoding) -> Source:
    def read(block_bytes: int) -> Iterator[str]:
        with _open_bytes(path) as file:
            yield from _decode_blocks(file, TextDecoder(name, decoding), block_bytes)

    return Source(name, read, rereadable=path.is_file())  # a named pipe is not a regular file


def _folder_sources(folder: Path, decoding: Decoding) -> Iterator[Source]:
    """Yield the text files below a folder, except hidden ones."""
    found = False
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or not path.is_file() or not _looks_like_text(path):
            continue
        found = True
        yield _file_source(path, str(path), decoding)
    if not found:
        raise CorpusError(f"{folder}: no text file in this folder")


def _decode_blocks(file: BinaryIO, decoder: TextDecoder, block_bytes: int) -> Iterator[str]:
    more = True
    while more:
        data = read_block(file, decoder.name, block_bytes)
        yield decoder.decode(data)
        more = bool(data)


def _open_bytes(path: Path) -> BinaryIO:
    """Open a file, and decompress it if its name ends with .gz."""
    try:
        return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror})") from None


def _looks_like_text(path: Path) -> bool:
    """Return True if a file has content, and no NUL bytes. Images and programs have NUL bytes."""
    with _open_bytes(path) as file:
        data = block = read_block(file, str(path), READ_BYTES)
        while block and b"\0" not in block:
            block = read_block(file, str(path), READ_BYTES)
    return bool(data) and not block


def _test_path(test: Callable[[], bool]) -> bool:
    """Return the result of a test such as `path.exists`; False for names that the system rejects, such as long ones."""
    try:
        return test()
    except OSError:
        return False


def _suggestion(spec: str) -> str:
    """Return a hint for an error message: existing texts with similar names, or the named corpora."""
    parent = Path(spec).parent
    try:
        siblings = [str(parent / path.name) for path in parent.iterdir()]
    except OSError:
        siblings = []
    similar = difflib.get_close_matches(spec, [*NAMED_CORPORA, *siblings], n=3)
    return f"did you mean {' or '.join(similar)}?" if similar else f"the named corpora are {', '.join(NAMED_CORPORA)}"
