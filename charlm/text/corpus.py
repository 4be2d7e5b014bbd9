"""Corpora: texts read piece by piece, as often as need be, and split into one to learn and one to validate on.

Texts given together are read one after the other, as `cat` would join them.
"""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from charlm.errors import ConfigError, CorpusError
from charlm.text.ids import Ids
from charlm.text.sources import check_encoding, decoded, open_texts, short_name

PIECE = 1 << 22
"""Characters of a piece of text, at most; it ends at a line end, or at a space, if there is one."""

KEPT = 1 << 26
"""Characters of a text that is kept in memory; a longer one is read anew in each pass."""


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


class CorpusReader:
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
        check_encoding(encoding)
        self._sources = [source for spec in specs for source in open_texts(spec, encoding, errors)]
        self._folder = folder
        self._kept: list[str] | None = []
        self._spool: BinaryIO | None = None
        self.name = short_name(specs[0])
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
            Pieces of the text, whole lines where lines are shorter than a piece. They depend on the text alone.

        Raises:
            CorpusError: As in `blocks`.
        """
        return _cut(self.blocks())

    def blocks(self) -> Iterator[str]:
        """Read everything once more, in small blocks as they come, which may begin and end anywhere.

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
            yield from decoded(self._spool, "standard input", "utf-8", "surrogatepass")
        else:
            left = self.chars
            for block in self._read():
                left -= len(block)
                yield block
            if left:
                raise CorpusError(f"{' '.join(self.sources)}: changed while it was read; try again")

    def read_through(self) -> None:
        """Make the first pass, if it has not been made."""
        if not self.sha256:
            for _ in self.blocks():
                pass

    def split(self, fraction: float) -> tuple["CorpusPart", "CorpusPart"]:
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
        return CorpusPart(self, 0, cut), CorpusPart(self, cut, self.chars)

    def _read(self) -> Iterator[str]:
        return (block for source in self._sources for block in source.read())

    def _first_pass(self) -> Iterator[str]:
        digest = hashlib.sha256()
        for block in self._read():
            data = block.encode("utf-8", "surrogatepass")
            digest.update(data)
            self.chars += len(block)
            if self._kept is not None:
                self._kept.append(block)
                if self.chars > KEPT:
                    self._spill()
            elif self._spool is not None:
                self._write(data)
            yield block
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
        for block in kept or ():
            self._write(block.encode("utf-8", "surrogatepass"))

    def _write(self, data: bytes) -> None:
        assert self._spool is not None, "opened before"
        try:
            self._spool.write(data)
        except OSError as error:
            raise CorpusError(f"{self._folder}: no room for the text of standard input ({error.strerror})") from None


@dataclass(frozen=True)
class CorpusPart:
    """Some of the characters of texts, which have been read once.

    Attributes:
        whole: The texts.
        begin: The first character's place.
        end: The place behind the last one.
    """

    whole: CorpusReader
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
        return self._of(self.whole.pieces())

    def blocks(self) -> Iterator[str]:
        """Read it once more, as `Texts.blocks` does."""
        return self._of(self.whole.blocks())

    def _of(self, texts: Iterator[str]) -> Iterator[str]:
        at = 0
        for text in texts:
            if part := text[max(0, self.begin - at) : max(0, self.end - at)]:
                yield part
            at += len(text)


def read_corpus(specs: Sequence[str], *, encoding: str = "utf-8", errors: str = "strict") -> Corpus:
    """Read texts and join them; the arguments are those of `Texts`.

    Raises:
        CorpusError: If a text is missing, unreadable, binary or empty, or its bytes are not of the encoding.
    """
    with CorpusReader(specs, encoding=encoding, errors=errors) as texts:
        text = "".join(texts.pieces())
        return Corpus(name=texts.name, sources=texts.sources, text=text, sha256=texts.sha256)


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


def _cut(texts: Iterable[str]) -> Iterator[str]:
    """Join texts, and cut them into pieces of at most `PIECE` characters."""
    held: list[str] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        while size >= PIECE:
            joined = "".join(held)
            cut = joined.rfind("\n", 0, PIECE) + 1 or joined.rfind(" ", 0, PIECE) + 1 or PIECE
            yield joined[:cut]
            held, size = [joined[cut:]], size - cut
    if size:
        yield "".join(held)
