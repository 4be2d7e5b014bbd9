"""Opens texts: files, folders, patterns, .gz, standard input and the named corpora, several at once.

Texts given together are read one after the other, as `cat` would join them. Line ends become newlines and a
byte order mark is dropped. A text is read in pieces, so that it may be larger than memory.
"""

import codecs
import difflib
import encodings.aliases
import glob
import gzip
import hashlib
import importlib.util
import io
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from charlm.errors import ConfigError, CorpusError
from charlm.library import NAMED_CORPORA
from charlm.tokenizer import Ids

STDIN = "-"

ERRORS = ("strict", "replace", "ignore", "surrogateescape")
"""What can be done with bytes that are not of the encoding, by Python's names."""

READ_BYTES = 1 << 20
"""Files are read in blocks of at most so many bytes."""

LINE_BYTES = 1 << 17
"""Lines are read in smaller ones: what is done with them shows soon, and is done with many."""

LONG_LINE = 1 << 16
"""Characters from which on a line is given in parts."""

NEWLINE = 10

PIECE = 1 << 22
"""Characters of a piece of text, about; it ends at a line end, or at a space, if there is one."""

KEPT = 1 << 26
"""Characters of a text that is kept in memory; a longer one is read anew in each pass."""


class Lines(list[str]):
    """Lines that have arrived together.

    Attributes:
        goes_on: Whether the last of them is only begun: the next block begins with more of it.
    """

    goes_on = False


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A text and where it came from.

    Attributes:
        name: A short name, fit for a folder.
        sources: The files and named corpora, in the order read.
        text: All of it.
        sha256: The hash of the text in UTF-8, by which a text is known again.
    """

    name: str
    sources: tuple[str, ...]
    text: str
    sha256: str


@dataclass(frozen=True)
class _Source:
    """One text: where it comes from, how to read it, and whether that can be done twice."""

    name: str
    read: Callable[[], Iterator[str]]
    lasts: bool = True


class Texts:
    """Texts that are read piece by piece, as often as need be; a context manager.

    The first pass finds out what they are. A text of up to `KEPT` characters stays in memory; of a longer one,
    what can be read only once, such as standard input, goes to a temporary file.

    Args:
        specs: Files, folders (all text files below), patterns, `-` for standard input, or named corpora. What
            exists as a file goes before a corpus of the same name.
        encoding: How bytes become characters.
        errors: What to do with bytes that don't: Python's `strict`, `replace`, `ignore`, `surrogateescape`.
        folder: Where a temporary file may go; the system's place for such files, if left out.

    Attributes:
        name: A short name, fit for a folder.
        sources: The files and named corpora, in the order read.
        chars: Characters in all, after the first pass.
        sha256: The hash of the text in UTF-8, by which a text is known again, after the first pass.

    Raises:
        CorpusError: If a text is missing.
    """

    def __init__(
        self, specs: Sequence[str], *, encoding: str = "utf-8", errors: str = "strict", folder: Path | None = None
    ) -> None:
        _check_encoding(encoding)
        self._sources = [source for spec in specs for source in _open_spec(spec, encoding, errors)]
        self._folder = folder
        self._kept: list[str] | None = []
        self._spool: BinaryIO | None = None
        self.name = _short_name(specs[0])
        self.sources = tuple(source.name for source in self._sources)
        self.chars = 0
        self.sha256 = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._spool is not None:
            self._spool.close()

    @property
    def in_memory(self) -> bool:
        """Whether the text is short enough to be kept, after the first pass."""
        return self._kept is not None

    def pieces(self) -> Iterator[str]:
        """Read everything once more.

        Yields:
            Pieces of the text, whole lines where lines are shorter than a piece.

        Raises:
            CorpusError: If a text is unreadable, binary or empty, its bytes are not of the encoding, or it has
                changed since the first pass.
        """
        if not self.sha256:
            yield from self._first_pass()
        elif self._kept is not None:
            yield from self._kept
        elif self._spool is not None:
            self._spool.seek(0)
            yield from _cut(_decoded(self._spool, "standard input", "utf-8", "surrogatepass"))
        else:
            left = self.chars
            for piece in _cut(text for source in self._sources for text in source.read()):
                left -= len(piece)
                yield piece
            if left:
                raise CorpusError(f"{' '.join(self.sources)}: changed while it was read; try again")

    def read_through(self) -> None:
        """Make the first pass, if it has not been made."""
        if not self.sha256:
            for _ in self.pieces():
                pass

    def split(self, fraction: float) -> tuple["Part", "Part"]:
        """Split by position, after the first pass: the end, a `fraction` of the characters, comes second.

        It is cut where a line ends, or else a word, if one does near by. With a fraction of 0 the second is empty.
        """
        cut, at = self.chars - round(self.chars * fraction), 0
        for piece in self.pieces() if fraction > 0 else ():
            if at < cut <= at + len(piece):
                here = cut - at
                cut = at + (piece.find("\n", here) + 1 or piece.rfind("\n", 0, here) + 1 or here)
                if cut == at + here:
                    cut = at + (piece.rfind(" ", 0, here) + 1 or here)
            at += len(piece)
        return Part(self, 0, cut), Part(self, cut, self.chars)

    def _first_pass(self) -> Iterator[str]:
        digest = hashlib.sha256()
        for piece in _cut(text for source in self._sources for text in source.read()):
            data = piece.encode("utf-8", "surrogatepass")
            digest.update(data)
            self.chars += len(piece)
            if self._kept is not None:
                self._kept.append(piece)
                if self.chars > KEPT:
                    self._spill()
            elif self._spool is not None:
                self._write(data)
            yield piece
        if not self.chars:
            raise CorpusError(f"{' '.join(self.sources)}: empty, there is nothing to read")
        self.sha256 = digest.hexdigest()

    def _spill(self) -> None:
        """Let go of what was kept; what cannot be read again goes to a file first."""
        kept, self._kept = self._kept, None
        if all(source.lasts for source in self._sources):
            return
        try:
            if self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
            self._spool = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed in __exit__
        except OSError as error:
            raise CorpusError(f"{self._folder}: no temporary file can be made ({error.strerror})") from None
        for piece in kept or ():
            self._write(piece.encode("utf-8", "surrogatepass"))

    def _write(self, data: bytes) -> None:
        assert self._spool is not None, "opened before"
        try:
            self._spool.write(data)
        except OSError as error:
            raise CorpusError(f"{self._folder}: no room for the text of standard input ({error.strerror})") from None


@dataclass(frozen=True)
class Part:
    """Some of the characters of texts, which have been read once.

    Attributes:
        whole: The texts.
        begin: The first character's place.
        end: The place behind the last one.
    """

    whole: Texts
    begin: int
    end: int

    @property
    def chars(self) -> int:
        """How many characters."""
        return self.end - self.begin

    @property
    def sha256(self) -> str:
        """By which this part is known again."""
        return f"{self.whole.sha256}[{self.begin}:{self.end}]"

    @property
    def in_memory(self) -> bool:
        """Whether the texts are short enough to be kept."""
        return self.whole.in_memory

    def pieces(self) -> Iterator[str]:
        """Read it once more, as `Texts.pieces` does."""
        at = 0
        for piece in self.whole.pieces():
            if part := piece[max(0, self.begin - at) : max(0, self.end - at)]:
                yield part
            at += len(piece)


def read_corpus(specs: Sequence[str], *, encoding: str = "utf-8", errors: str = "strict") -> Corpus:
    """Read texts and join them; the arguments are those of `Texts`.

    Raises:
        CorpusError: If a text is missing, unreadable, binary or empty, or its bytes are not of the encoding.
    """
    with Texts(specs, encoding=encoding, errors=errors) as texts:
        text = "".join(texts.pieces())
        return Corpus(name=texts.name, sources=texts.sources, text=text, sha256=texts.sha256)


def read_lines(specs: Sequence[str], *, encoding: str = "utf-8", errors: str = "strict") -> Iterator[Lines]:
    """Read texts line by line, as they arrive: a pipe's lines come as soon as they are written to it.

    Args:
        specs: As for `Texts`.
        encoding: How bytes become characters.
        errors: What to do with bytes that don't.

    Yields:
        The whole lines that have arrived, with their newlines; the last of a text may lack it. A line of more than
        `LONG_LINE` characters may come in parts, so that a line of any length can be read.

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
            for source in _open_spec(spec, encoding, errors):
                yield Lines(io.StringIO("".join(source.read()), newline="\n").readlines())


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


def _open_spec(spec: str, encoding: str, errors: str) -> Iterator[_Source]:
    if "\0" in spec:
        raise CorpusError(f"{spec}: no file has such a name")
    path = Path(spec)
    if spec == STDIN:
        yield _Source(STDIN, lambda: _decoded(sys.stdin.buffer, "standard input", encoding, errors), lasts=False)
    elif _is(path.is_dir):
        yield from _open_folder(path, encoding, errors)
    elif _is(path.exists):
        yield _Source(spec, lambda: _decoded_file(path, encoding, errors), lasts=path.is_file())
    elif matches := sorted(glob.glob(spec, recursive=True)):
        for match in matches:
            yield from _open_spec(match, encoding, errors)
    elif spec in NAMED_CORPORA:
        yield _Source(spec, lambda: iter([NAMED_CORPORA[spec].load()]))
    else:
        raise CorpusError(f"{spec}: no such file, folder or named corpus{_suggest(spec)}")


def _is(question: Callable[[], bool]) -> bool:
    """Ask something of a path; one that no file can have, too long or unreadable, is not there."""
    try:
        return question()
    except OSError:
        return False


def _open_folder(folder: Path, encoding: str, errors: str) -> Iterator[_Source]:
    found = False
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or not path.is_file() or not _looks_like_text(path):
            continue
        found = True
        yield _Source(str(path), lambda path=path: _decoded_file(path, encoding, errors))  # type: ignore[misc]
    if not found:
        raise CorpusError(f"{folder}: no text file in this folder")


def _looks_like_text(path: Path) -> bool:
    """Whether a file has something in it, but no NUL: pictures and programs may lie among texts."""
    with _open_bytes(path) as file:
        data = block = _read(file, str(path), READ_BYTES)
        while block and b"\0" not in block:
            block = _read(file, str(path), READ_BYTES)
    return bool(data) and not block


def _check_encoding(encoding: str) -> None:
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


def _open_bytes(path: Path) -> BinaryIO:
    """Open a file, decompressing .gz; reading turns what may go wrong into a `CorpusError`."""
    try:
        return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror})") from None


def _read(file: BinaryIO, source: str, size: int) -> bytes:
    """Read what is there, up to `size` bytes; nothing at the end."""
    try:
        return file.read1(size)  # type: ignore[attr-defined,no-any-return]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorpusError(f"{source}: not a whole gzip file ({error})") from None
    except OSError as error:
        raise CorpusError(f"{source}: cannot be read ({error.strerror})") from None


def _lines(file: BinaryIO, source: str, encoding: str, errors: str) -> Iterator[Lines]:
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(errors), translate=True)
    rest, number, data, began = "", 1, b"first", False
    block = Lines()
    while data:
        data = _read(file, source, LINE_BYTES)
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise CorpusError(
                f"{source}: not {encoding} after line {number:,} ({error.reason}); give --encoding latin-1, say, "
                "or --errors replace"
            ) from None
        except UnicodeError as error:
            raise CorpusError(f"{source}: not {encoding} ({error}); give another --encoding") from None
        if text and not began:
            text, began = text.removeprefix("\ufeff"), True
        *lines, rest = (rest + text).split("\n")
        number += len(lines)
        went_on, block = block.goes_on, Lines(line + "\n" for line in lines)
        block.goes_on = bool(data) and (len(rest) >= LONG_LINE or (went_on and not lines))
        if block.goes_on:
            cut = rest.rfind(" ")  # between words, where there are any
            cut = cut if cut > 0 else len(rest) if len(rest) >= LONG_LINE else 0
            block.append(rest[:cut])
            rest = rest[cut:]
        elif not data and (rest or (went_on and not lines)):
            block.append(rest)
        if block:
            yield block


def _decoded_file(path: Path, encoding: str, errors: str) -> Iterator[str]:
    with _open_bytes(path) as file:
        yield from _decoded(file, str(path), encoding, errors)


def _decoded(file: BinaryIO, source: str, encoding: str, errors: str) -> Iterator[str]:
    """The text of a file, block by block."""
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    bytes_before = lines_before = chars_before = 0
    data = b"first"
    while data:
        data = _read(file, source, READ_BYTES)
        waiting = len(decoder.getstate()[0])  # the bytes of a character that the last block broke off
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            line = lines_before + error.object.count(b"\n", 0, error.start) + 1
            raise CorpusError(
                f"{source}: not {encoding}: byte 0x{error.object[error.start]:02x} at position "
                f"{bytes_before - waiting + error.start:,} (line {line:,}); give --encoding latin-1, say, or "
                "--errors replace"
            ) from None
        except UnicodeError as error:
            raise CorpusError(f"{source}: not {encoding} ({error}); give another --encoding") from None
        if "\0" in text:
            raise CorpusError(
                f"{source}: looks binary (a NUL character at position {chars_before + text.index(chr(0)):,})"
            )
        if not chars_before:
            text = text.removeprefix("\ufeff")
        bytes_before += len(data)
        lines_before += int(np.count_nonzero(np.frombuffer(data, dtype=np.uint8) == NEWLINE))  # faster than bytes.count
        chars_before += len(text)
        yield newlines.decode(text, final=not data)


def _cut(texts: Iterable[str]) -> Iterator[str]:
    """Join texts, and cut them into pieces of about `PIECE` characters."""
    held: list[str] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= PIECE:
            joined = "".join(held)
            cut = joined.rfind("\n") + 1 or joined.rfind(" ") + 1 or len(joined)
            yield joined[:cut]
            held, size = [joined[cut:]], len(joined) - cut
    if size:
        yield "".join(held)


def _suggest(spec: str) -> str:
    parent = Path(spec).parent
    try:
        beside = [str(parent / path.name) for path in parent.iterdir()]
    except OSError:
        beside = []
    near = difflib.get_close_matches(spec, [*NAMED_CORPORA, *beside], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"the named ones are {', '.join(NAMED_CORPORA)}"
    return f"; {hint}"


def _short_name(spec: str) -> str:
    if spec == STDIN:
        return "stdin"
    name = Path(spec).resolve().name.split(".")[0]
    return "".join(char if char.isalnum() or char in "-_" else "-" for char in name).strip("-") or "text"
