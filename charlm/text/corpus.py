r"""Corpora: texts that can be read repeatedly, in blocks, and split into training text and validation text.

Several texts are read one after the other, and each one starts on a new line. Text is returned with `\n` as line end.
Lengths and positions are those of the original text, in which a line end may be `\r\n`.
"""

import codecs
import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from charlm.config import MAX_INPUT_CHARS
from charlm.errors import ConfigError, CorpusError
from charlm.text.decoder import Decoding
from charlm.text.ids import Ids
from charlm.text.line_ends import fold_line_ends, join_line_ends
from charlm.text.records import Table
from charlm.text.sources import READ_BYTES, join_texts, open_texts, read_block, short_name

MAX_PIECE_CHARS = 1 << 22
"""Maximum length of a piece of text in characters. It bounds the memory that a tokenizer needs."""

MAX_CHARS_IN_MEMORY = 1 << 26
"""Maximum length in characters of a text that is kept in memory. Longer texts are read again in each pass."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A text and its origin.

    Attributes:
        name: A short name, suitable as a folder name.
        sources: Names of files and named corpora, in the order in which they were read.
        text: The whole text.
        sha256: SHA-256 hash of the text in UTF-8, which identifies it.
        notes: Sentences about files of a folder that were skipped.
    """

    name: str
    sources: tuple[str, ...]
    text: str
    sha256: str
    notes: tuple[str, ...] = ()


class CorpusReader:
    """Reader of one or more texts, which can be read any number of times; a context manager.

    Length and hash are known after the first pass. A text of up to `MAX_CHARS_IN_MEMORY` characters stays in memory
    after that pass. If a longer text can be read only once, such as standard input, the first pass copies it to a
    temporary file.

    Args:
        specs: Files, folders (all text files below them), glob patterns, `-` for standard input, or named corpora. A
            file takes precedence over a corpus of the same name.
        encoding: Encoding of the texts.
        errors: Treatment of bytes that are not valid in the encoding, one of `charlm.config.DECODING_ERRORS`.
        folder: Folder for a temporary file; the system's if None.
        table: The field to read, each record on a line of its own; None to read whole texts.

    Attributes:
        name: A short name, suitable as a folder name.
        sources: Names of files and named corpora, in the order in which they are read.
        notes: Sentences about files of a folder that are skipped.
        num_chars: Length of all texts in characters, including the carriage returns of line ends; known after the
            first pass.
        num_returns: Number of carriage returns that belong to line ends; known after the first pass.
        sha256: SHA-256 hash of the returned text in UTF-8, which identifies it; empty before the end of the first pass.

    Raises:
        CorpusError: If a text is missing.
        ConfigError: If the encoding is unknown.

    Example:
        >>> with CorpusReader(["hello"]) as corpus:
        ...     text = "".join(corpus.pieces())
        >>> text, corpus.num_chars
        ('hihello', 7)
    """

    def __init__(
        self,
        specs: Sequence[str],
        *,
        encoding: str = "utf-8",
        errors: str = "strict",
        folder: Path | None = None,
        table: Table | None = None,
    ) -> None:
        decoding = Decoding(encoding=encoding, errors=errors)
        self.notes: list[str] = []
        sources = [source for spec in specs for source in open_texts(spec, decoding, self.notes.append)]
        self._sources = sources if table is None else list(map(table.select, sources))
        self._folder = folder
        self._blocks: list[str] | None = []  # in memory; None if the text is too long
        self._temp_file: BinaryIO | None = None
        self.name = short_name(specs[0])
        self.sources = tuple(source.name for source in self._sources)
        self.num_chars = self.num_returns = 0
        self.sha256 = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._temp_file is not None:
            self._temp_file.close()

    @property
    def in_memory(self) -> bool:
        """True if the text is short enough to be kept in memory; known after the first pass."""
        return self._blocks is not None

    def pieces(self) -> Iterator[str]:
        """Read all texts from the beginning, in pieces that a tokenizer can encode one by one.

        Yields:
            Pieces of at most `MAX_PIECE_CHARS` characters. A piece ends after a newline, or else after a space, if it
            contains one. Pieces depend on the text alone, not on the blocks in which it is read.

        Raises:
            CorpusError: As `blocks` does.
        """
        return map(fold_line_ends, self.original_pieces())

    def blocks(self) -> Iterator[str]:
        """Read all texts from the beginning, in small blocks that begin and end anywhere.

        Raises:
            CorpusError: If a text is unreadable, binary or empty, if its bytes are not valid in the encoding, or if it
                has changed since the first pass.
        """
        return map(fold_line_ends, self.original_blocks())

    def original_pieces(self) -> Iterator[str]:
        """Read all texts as `pieces` does, with their original line ends."""
        return _cut_into_pieces(self.original_blocks())

    def original_blocks(self) -> Iterator[str]:
        """Read all texts as `blocks` does, with their original line ends. No block ends within a line end."""
        if not self.sha256:
            yield from self._first_pass()
        elif self._blocks is not None:
            yield from self._blocks
        elif self._temp_file is not None:
            yield from join_line_ends(self._temp_blocks())
        else:
            chars_left = self.num_chars
            for block in self._source_blocks():
                chars_left -= len(block)
                yield block
            if chars_left:
                raise CorpusError(f"{' '.join(self.sources)}: changed while it was read; try again")

    def read_through(self) -> None:
        """Make the first pass if it has not been made yet."""
        if not self.sha256:
            for _ in self.blocks():
                pass

    def split(self, fraction: float) -> tuple["CorpusPart", "CorpusPart"]:
        """Split the text by position, after the first pass.

        The text is cut after a newline near the exact position, or else after a space.

        Args:
            fraction: Share of the characters in the second part; 0 makes the second part empty.

        Returns:
            The beginning and the end of the text.
        """
        cut, offset = self.num_chars - round(self.num_chars * fraction), 0
        for piece in self.original_pieces() if fraction > 0 else ():
            if offset < cut <= offset + len(piece):
                cut = offset + _nearby_cut(piece, cut - offset)
            offset += len(piece)
        return CorpusPart(self, 0, cut), CorpusPart(self, cut, self.num_chars)

    def _source_blocks(self) -> Iterator[str]:
        return join_line_ends(join_texts(source.read(READ_BYTES) for source in self._sources))

    def _first_pass(self) -> Iterator[str]:
        """Read all texts, count and hash them, and keep them in memory or in a temporary file if necessary."""
        digest = hashlib.sha256()
        for block in self._source_blocks():
            text = fold_line_ends(block)
            digest.update(text.encode("utf-8", "surrogatepass"))
            self.num_chars += len(block)
            self.num_returns += len(block) - len(text)
            if self._blocks is not None:
                self._blocks.append(block)
                if self.num_chars > MAX_CHARS_IN_MEMORY:
                    self._free_memory()
            elif self._temp_file is not None:
                self._write(block.encode("utf-8", "surrogatepass"))
            yield block
        if not self.num_chars:
            raise CorpusError(f"{' '.join(self.sources)}: empty; give a text with content")
        self.sha256 = digest.hexdigest()

    def _free_memory(self) -> None:
        """Remove the text from memory, after copying it to a temporary file if it cannot be read again."""
        blocks, self._blocks = self._blocks or [], None
        if all(source.rereadable for source in self._sources):
            return
        try:
            if self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
            self._temp_file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed in __exit__
        except OSError as error:
            raise self._temp_error(error) from None
        for block in blocks:
            self._write(block.encode("utf-8", "surrogatepass"))

    def _write(self, data: bytes) -> None:
        assert self._temp_file is not None, "opened in _free_memory"
        try:
            self._temp_file.write(data)
        except OSError as error:
            raise self._temp_error(error) from None

    def _temp_error(self, error: OSError) -> CorpusError:
        return CorpusError(
            f"cannot copy standard input to a temporary file ({error.strerror}): set cache to a folder other than "
            f"{self._folder or tempfile.gettempdir()}",
            fields=["cache"],
        )

    def _temp_blocks(self) -> Iterator[str]:
        file = self._temp_file
        assert file is not None, "opened in the first pass"
        file.seek(0)
        blocks = iter(lambda: read_block(file, "temporary file", READ_BYTES), b"")
        return codecs.iterdecode(blocks, "utf-8", "surrogatepass")


@dataclass(frozen=True)
class CorpusPart:
    """A part of a corpus whose first pass has been made.

    Attributes:
        corpus: The whole corpus.
        begin: Position of the first character in the original text.
        end: Position after the last character.
    """

    corpus: CorpusReader
    begin: int
    end: int

    @property
    def num_chars(self) -> int:
        """Length in characters, including the carriage returns of line ends."""
        return self.end - self.begin

    @property
    def sha256(self) -> str:
        """String that identifies this part: hash of the whole corpus, and the positions."""
        return f"{self.corpus.sha256}[{self.begin}:{self.end}]"

    @property
    def in_memory(self) -> bool:
        """True if the corpus is short enough to be kept in memory."""
        return self.corpus.in_memory

    def pieces(self) -> Iterator[str]:
        """Read this part from the beginning, as `CorpusReader.pieces` does."""
        return self._within(self.corpus.original_pieces())

    def blocks(self) -> Iterator[str]:
        """Read this part from the beginning, as `CorpusReader.blocks` does."""
        return self._within(self.corpus.original_blocks())

    def _within(self, texts: Iterator[str]) -> Iterator[str]:
        """Cut this part out of consecutive texts that together are the whole corpus."""
        offset = 0
        for text in texts:
            if part := text[max(0, self.begin - offset) : max(0, self.end - offset)]:
                yield fold_line_ends(part)
            offset += len(text)


def read_corpus(
    specs: Sequence[str], *, encoding: str = "utf-8", errors: str = "strict", max_input: int = MAX_INPUT_CHARS
) -> Corpus:
    """Read texts and join them.

    Args:
        specs: Texts, as for `CorpusReader`.
        encoding: Encoding of the texts.
        errors: Treatment of bytes that are not valid in the encoding.
        max_input: Maximum length in characters. A small compressed file may contain a text of any length.

    Raises:
        CorpusError: If a text is missing, unreadable, binary, empty or too long, or its bytes are not valid in the
            encoding.
        ConfigError: If the encoding is unknown.

    Example:
        >>> read_corpus(["hello"]).text
        'hihello'
    """
    with CorpusReader(specs, encoding=encoding, errors=errors) as corpus:
        text = "".join(limited(corpus.pieces(), " ".join(corpus.sources), max_input))
        return Corpus(
            name=corpus.name, sources=corpus.sources, text=text, sha256=corpus.sha256, notes=tuple(corpus.notes)
        )


def limited(blocks: Iterable[str], name: str, max_input: int) -> Iterator[str]:
    """Yield the blocks of a text that is kept in memory, up to a maximum length.

    Args:
        blocks: The text.
        name: Its name, for the message.
        max_input: Maximum length in characters.

    Raises:
        CorpusError: If the text is longer.
    """
    chars_left = max_input
    for block in blocks:
        chars_left -= len(block)
        if chars_left < 0:
            raise CorpusError(
                f"{name}: longer than {max_input:,} characters, which is the limit for a text that must be in memory "
                "as a whole; set max_input to allow more",
                fields=["max_input"],
            )
        yield block


def split_ids(ids: Ids, val_fraction: float) -> tuple[Ids, Ids]:
    """Split token ids by position.

    Args:
        ids: Ids of the whole text, (N,).
        val_fraction: Share of the ids, taken from the end, that is kept for validation; 0 for none.

    Returns:
        Training ids and validation ids.

    Raises:
        ConfigError: If a part is too short; see `check_split`.
    """
    cut = len(ids) - round(len(ids) * val_fraction)
    train, validation = ids[:cut], ids[cut:]
    check_split(len(train), len(validation), val_fraction)
    return train, validation


def check_split(num_train: int, num_validation: int, val_fraction: float) -> None:
    """Check that both parts of a split have enough tokens.

    Args:
        num_train: Number of tokens for training; at least 2 are needed.
        num_validation: Number of tokens for validation; at least 1 is needed unless the fraction is 0.
        val_fraction: Share of the text kept for validation.

    Raises:
        ConfigError: If a part is too short.
    """
    if num_train < 2 or (val_fraction > 0 and num_validation < 1):
        raise ConfigError(
            f"val_fraction {val_fraction:g} of {num_train + num_validation:,} tokens leaves {num_train:,} for training "
            f"and {num_validation:,} for validation: set another fraction, or give a longer text",
            fields=["val_fraction"],
        )


def _nearby_cut(piece: str, position: int) -> int:
    """Return a cut near `position`: after a newline, or else after a space, or else `position` itself."""
    cut = piece.find("\n", position) + 1 or piece.rfind("\n", 0, position) + 1 or position
    if cut == position:
        cut = piece.rfind(" ", 0, position) + 1 or position
    return cut


def _cut_into_pieces(blocks: Iterable[str]) -> Iterator[str]:
    """Join blocks of text and cut them into pieces; see `CorpusReader.pieces`."""
    waiting: list[str] = []
    size = 0
    for block in blocks:
        waiting.append(block)
        size += len(block)
        while size >= MAX_PIECE_CHARS:
            text = "".join(waiting)
            cut = text.rfind("\n", 0, MAX_PIECE_CHARS) + 1 or text.rfind(" ", 0, MAX_PIECE_CHARS) + 1 or MAX_PIECE_CHARS
            if text[cut - 1 : cut + 1] == "\r\n":
                cut -= 1
            yield text[:cut]
            waiting, size = [text[cut:]], size - cut
    if size:
        yield "".join(waiting)
