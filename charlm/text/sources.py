"""Where texts come from: files, folders, patterns, .gz, standard input and the named corpora, opened and decoded.

Line ends become newlines and a byte order mark is dropped. A text comes block by block: it may be larger than memory.
"""

import codecs
import difflib
import encodings.aliases
import glob
import gzip
import importlib.util
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from charlm.errors import ConfigError, CorpusError
from charlm.text.named_corpora import NAMED_CORPORA

STDIN = "-"

ERRORS = ("strict", "replace", "ignore", "surrogateescape")
"""What can be done with bytes that are not of the encoding, by Python's names."""

READ_BYTES = 1 << 16
"""Files are read in blocks of at most so many bytes: all that is done with one finds it in the processor's cache."""

NEWLINE = 10

CLEAN = (b"", 0)
"""The state of a newline decoder that has not been left with half a line end."""


@dataclass(frozen=True)
class Source:
    """One text: where it comes from, how to read it, and whether that can be done twice."""

    name: str
    read: Callable[[], Iterator[str]]
    lasts: bool = True


def open_texts(spec: str, encoding: str, errors: str) -> Iterator[Source]:
    """The texts that a word on the command line stands for; reading them is left to whoever gets them.

    Args:
        spec: A file, a folder (all text files below), a pattern, `-` for standard input, or a named corpus. What exists
            as a file goes before a corpus of the same name.
        encoding: How bytes become characters.
        errors: What to do with bytes that don't, one of `ERRORS`.

    Raises:
        CorpusError: If there is none.
    """
    if "\0" in spec:
        raise CorpusError(f"{spec}: no file has such a name")
    path = Path(spec)
    if spec == STDIN:
        yield Source(STDIN, lambda: decoded(sys.stdin.buffer, "standard input", encoding, errors), lasts=False)
    elif _is(path.is_dir):
        yield from _open_folder(path, encoding, errors)
    elif _is(path.exists):
        yield Source(spec, lambda: _decoded_file(path, encoding, errors), lasts=path.is_file())
    elif matches := sorted(glob.glob(spec, recursive=True)):
        for match in matches:
            yield from open_texts(match, encoding, errors)
    elif spec in NAMED_CORPORA:
        yield Source(spec, lambda: iter([NAMED_CORPORA[spec].load()]))
    else:
        raise CorpusError(f"{spec}: no such file, folder or named corpus{suggest(spec)}")


def read_named(name: str) -> str:
    """The text of a named corpus.

    Raises:
        CorpusError: If there is none of this name, or its data is not installed.
    """
    if name not in NAMED_CORPORA:
        raise CorpusError(f"{name}: no corpus of this name{suggest(name)}")
    return NAMED_CORPORA[name].load()


def check_encoding(encoding: str) -> None:
    """Take Python's own encodings of text only: a package may have made others known, under any name."""
    try:
        name = encodings.normalize_encoding(encoding).lower()
        name = encodings.aliases.aliases.get(name, name)
        if importlib.util.find_spec(f"encodings.{name}") is None:
            raise LookupError(f"unknown encoding: {encoding}")
        codecs.getincrementaldecoder(encoding)
        "x".encode(encoding)
    except (LookupError, ValueError, ImportError) as error:
        raise ConfigError(f"--encoding {encoding}: {error}; try utf-8, latin-1 or utf-16") from None


def open_bytes(path: Path) -> BinaryIO:
    """Open a file, decompressing .gz; reading turns what may go wrong into a `CorpusError`."""
    try:
        return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror})") from None


def read_block(file: BinaryIO, source: str, size: int) -> bytes:
    """Read what is there, up to `size` bytes; nothing at the end."""
    try:
        return file.read1(size)  # type: ignore[attr-defined,no-any-return]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorpusError(f"{source}: not a whole gzip file ({error})") from None
    except OSError as error:
        raise CorpusError(f"{source}: cannot be read ({error.strerror})") from None


def decoded(file: BinaryIO, source: str, encoding: str, errors: str) -> Iterator[str]:
    """The text of a file, block by block."""
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    bytes_before = lines_before = chars_before = 0
    data = b"first"
    while data:
        data = read_block(file, source, READ_BYTES)
        waiting = len(decoder.getstate()[0])  # the bytes of a character that the last block broke off
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            nul = error.object.find(b"\0", 0, error.start)
            if nul >= 0 and "16" not in encoding and "32" not in encoding:  # in which a NUL byte is nothing odd
                raise CorpusError(
                    f"{source}: looks binary (a NUL character at position {bytes_before - waiting + nul:,})"
                ) from None
            line = lines_before + error.object.count(b"\n", 0, error.start) + 1
            raise CorpusError(
                f"{source}: not {encoding}: byte 0x{error.object[error.start]:02x} at position "
                f"{bytes_before - waiting + error.start:,} (line {line:,}); give --encoding latin-1, say, or "
                "--errors replace"
            ) from None
        except UnicodeError as error:
            raise CorpusError(f"{source}: not {encoding} ({error}); give another --encoding") from None
        # Bytes are looked through at once, characters of two bytes are not; only in UTF-8 does that say all.
        if (b"\0" in data or encoding != "utf-8") and "\0" in text:
            raise CorpusError(
                f"{source}: looks binary (a NUL character at position {chars_before + text.index(chr(0)):,})"
            )
        if not chars_before:
            text = text.removeprefix("\ufeff")
        bytes_before += len(data)
        lines_before += int(np.count_nonzero(np.frombuffer(data, dtype=np.uint8) == NEWLINE))  # faster than bytes.count
        chars_before += len(text)
        if "\r" in text or newlines.getstate() != CLEAN or not data:  # rare, and the decoder is slow beyond Latin-1
            text = newlines.decode(text, final=not data)
        yield text


def _decoded_file(path: Path, encoding: str, errors: str) -> Iterator[str]:
    with open_bytes(path) as file:
        yield from decoded(file, str(path), encoding, errors)


def _open_folder(folder: Path, encoding: str, errors: str) -> Iterator[Source]:
    found = False
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or not path.is_file() or not _looks_like_text(path):
            continue
        found = True
        yield Source(str(path), lambda path=path: _decoded_file(path, encoding, errors))  # type: ignore[misc]
    if not found:
        raise CorpusError(f"{folder}: no text file in this folder")


def _looks_like_text(path: Path) -> bool:
    """Whether a file has something in it, but no NUL: pictures and programs may lie among texts."""
    with open_bytes(path) as file:
        data = block = read_block(file, str(path), READ_BYTES)
        while block and b"\0" not in block:
            block = read_block(file, str(path), READ_BYTES)
    return bool(data) and not block


def _is(question: Callable[[], bool]) -> bool:
    """Ask something of a path; one that no file can have, too long or unreadable, is not there."""
    try:
        return question()
    except OSError:
        return False


def suggest(spec: str) -> str:
    """What may have been meant by a word that stands for no text, to be put behind an error."""
    parent = Path(spec).parent
    try:
        beside = [str(parent / path.name) for path in parent.iterdir()]
    except OSError:
        beside = []
    near = difflib.get_close_matches(spec, [*NAMED_CORPORA, *beside], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"the named ones are {', '.join(NAMED_CORPORA)}"
    return f"; {hint}"


def short_name(spec: str) -> str:
    """A name for a text that is fit for a folder."""
    if spec == STDIN:
        return "stdin"
    name = Path(spec).resolve().name.split(".")[0]
    return "".join(char if char.isalnum() or char in "-_" else "-" for char in name).strip("-") or "text"
