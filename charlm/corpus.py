"""Opens texts: files, folders, patterns, .gz, standard input and the named corpora, several at once.

Texts given together are read one after the other, as `cat` would join them. Line ends become newlines and a
byte order mark is dropped.
"""

import codecs
import difflib
import glob
import gzip
import hashlib
import io
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from charlm.errors import ConfigError, CorpusError
from charlm.library import NAMED_CORPORA
from charlm.tokenizer import Ids

STDIN = "-"

READ_BYTES = 1 << 20
"""Lines are read in blocks of at most so many bytes."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A text and where it came from.

    Attributes:
        name: A short name, fit for a folder.
        sources: The files and named corpora, in the order read.
        text: All of it.
    """

    name: str
    sources: tuple[str, ...]
    text: str

    @property
    def sha256(self) -> str:
        """The hash of the text in UTF-8, by which a text is known again."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()


def read_corpus(specs: Sequence[str], *, encoding: str = "utf-8", errors: str = "strict") -> Corpus:
    """Read texts and join them.

    Args:
        specs: Files, folders (all text files below), patterns, `-` for standard input, or named corpora. What
            exists as a file goes before a corpus of the same name.
        encoding: How bytes become characters.
        errors: What to do with bytes that don't: Python's `strict`, `replace`, `ignore`, `surrogateescape`.

    Raises:
        CorpusError: If a text is missing, unreadable, binary or empty, or its bytes are not of the encoding.
    """
    _check_encoding(encoding)
    sources: list[str] = []
    parts: list[str] = []
    for spec in specs:
        for source, text in _open_spec(spec, encoding, errors):
            sources.append(source)
            parts.append(text)
    text = "".join(parts)
    if not text:
        raise CorpusError(f"{' '.join(specs)}: empty, there is nothing to read")
    return Corpus(name=_short_name(specs[0]), sources=tuple(sources), text=text)


def read_lines(specs: Sequence[str], *, encoding: str = "utf-8", errors: str = "strict") -> Iterator[list[str]]:
    """Read texts line by line, as they arrive: a pipe's lines come as soon as they are written to it.

    Args:
        specs: As for `read_corpus`.
        encoding: How bytes become characters.
        errors: What to do with bytes that don't.

    Yields:
        The whole lines that have arrived, with their newlines; the last of a text may lack it.

    Raises:
        CorpusError: As `read_corpus` does, but for binary and empty texts, which have lines or none.
    """
    _check_encoding(encoding)
    for spec in specs:
        path = Path(spec)
        if spec == STDIN:
            yield from _lines(sys.stdin.buffer, "standard input", encoding, errors)
        elif path.exists() and not path.is_dir():
            with _open_bytes(path) as file:
                yield from _lines(file, spec, encoding, errors)
        else:
            for _, text in _open_spec(spec, encoding, errors):
                yield io.StringIO(text, newline="\n").readlines()


def read_named(name: str) -> str:
    """The text of a named corpus.

    Raises:
        CorpusError: If there is none of this name, or its data is not installed.
    """
    if name not in NAMED_CORPORA:
        raise CorpusError(f"{name}: no corpus of this name{_suggest(name)}")
    return NAMED_CORPORA[name].load()


def split_ids(ids: Ids, val_fraction: float) -> tuple[Ids, Ids]:
    """Split a text by position: its end, a `val_fraction` of it, is for validation.

    Returns:
        Training and validation ids; with a fraction of 0 the latter are empty.

    Raises:
        ConfigError: See `check_split`.
    """
    cut = len(ids) - round(len(ids) * val_fraction)
    train, validation = ids[:cut], ids[cut:]
    check_split(len(train), len(validation), val_fraction)
    return train, validation


def check_split(to_train: int, to_validate: int, val_fraction: float) -> None:
    """Refuse a split that leaves one side with too few tokens to learn from or to measure.

    Raises:
        ConfigError: If it does.
    """
    if to_train < 2 or (val_fraction > 0 and to_validate < 1):
        raise ConfigError(
            f"--val-fraction {val_fraction:g} of {to_train + to_validate:,} tokens leaves {to_train:,} to train on and "
            f"{to_validate:,} to validate on: give another, or a longer text"
        )


def split_text(text: str, val_fraction: float) -> tuple[str, str]:
    """Split a text by position as `split_ids` does its tokens, but where a line ends, or else a word, if one does.

    Words whose split is known by their text can be counted by the character.

    Returns:
        Training and validation text; with a fraction of 0 the latter is empty.
    """
    cut = len(text) - round(len(text) * val_fraction)
    if val_fraction > 0:
        cut = text.find("\n", cut) + 1 or text.rfind("\n", 0, cut) + 1 or text.rfind(" ", 0, cut) + 1 or cut
    return text[:cut], text[cut:]


def _open_spec(spec: str, encoding: str, errors: str) -> Iterator[tuple[str, str]]:
    path = Path(spec)
    if spec == STDIN:
        yield STDIN, _decode(sys.stdin.buffer.read(), "standard input", encoding, errors)
    elif path.is_dir():
        yield from _open_folder(path, encoding, errors)
    elif path.exists():
        yield spec, _decode(_read_bytes(path), spec, encoding, errors)
    elif matches := sorted(glob.glob(spec, recursive=True)):
        for match in matches:
            yield from _open_spec(match, encoding, errors)
    elif spec in NAMED_CORPORA:
        yield spec, NAMED_CORPORA[spec].load()
    else:
        raise CorpusError(f"{spec}: no such file, folder or named corpus{_suggest(spec)}")


def _open_folder(folder: Path, encoding: str, errors: str) -> Iterator[tuple[str, str]]:
    found = False
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or not path.is_file():
            continue
        data = _read_bytes(path)
        if not data or b"\0" in data:  # pictures and programs may lie among texts
            continue
        found = True
        yield str(path), _decode(data, str(path), encoding, errors)
    if not found:
        raise CorpusError(f"{folder}: no text file in this folder")


def _check_encoding(encoding: str) -> None:
    try:
        "x".encode(encoding)
    except LookupError as error:
        raise ConfigError(f"--encoding: {error}; try utf-8, latin-1 or utf-16") from None


def _open_bytes(path: Path) -> BinaryIO:
    """Open a file, decompressing .gz; reading turns what may go wrong into a `CorpusError`."""
    try:
        return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror})") from None


def _read(file: BinaryIO, source: str, size: int) -> bytes:
    """Read what is there, up to `size` bytes; -1 for all."""
    try:
        return file.read() if size < 0 else file.read1(size)  # type: ignore[attr-defined]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorpusError(f"{source}: not a whole gzip file ({error})") from None
    except OSError as error:
        raise CorpusError(f"{source}: cannot be read ({error.strerror})") from None


def _read_bytes(path: Path) -> bytes:
    with _open_bytes(path) as file:
        return _read(file, str(path), -1)


def _lines(file: BinaryIO, source: str, encoding: str, errors: str) -> Iterator[list[str]]:
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(errors), translate=True)
    rest, number, data = "", 1, b"first"
    while data:
        data = _read(file, source, READ_BYTES)
        try:
            text = rest + decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise CorpusError(
                f"{source}: not {encoding} after line {number:,} ({error.reason}); give --encoding latin-1, say, "
                "or --errors replace"
            ) from None
        *lines, rest = text.split("\n")
        number += len(lines)
        if lines:
            yield [line + "\n" for line in lines]
    if rest:
        yield [rest]


def _decode(data: bytes, source: str, encoding: str, errors: str) -> str:
    try:
        text = data.decode(encoding, errors)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CorpusError(
            f"{source}: not {encoding}: byte 0x{data[error.start]:02x} at position {error.start:,} (line {line:,}); "
            "give --encoding latin-1, say, or --errors replace"
        ) from None
    if "\0" in text:
        raise CorpusError(f"{source}: looks binary (a NUL character at position {text.index(chr(0)):,})")
    return io.IncrementalNewlineDecoder(None, translate=True).decode(text, final=True).removeprefix("\ufeff")


def _suggest(spec: str) -> str:
    parent = Path(spec).parent
    beside = [str(parent / path.name) for path in parent.iterdir()] if parent.is_dir() else []
    near = difflib.get_close_matches(spec, [*NAMED_CORPORA, *beside], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"the named ones are {', '.join(NAMED_CORPORA)}"
    return f"; {hint}"


def _short_name(spec: str) -> str:
    if spec == STDIN:
        return "stdin"
    name = Path(spec).resolve().name.split(".")[0]
    return "".join(char if char.isalnum() or char in "-_" else "-" for char in name).strip("-") or "text"
