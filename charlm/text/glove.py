"""Word vectors in text files: a word and its numbers a line, GloVe's form, or word2vec's with a header line.

What costs time in such a file is turning text into numbers, so the word is looked at first, and only the rows that
somebody wants are parsed. A word may have spaces inside (GloVe's 840B has some): its numbers are counted from the
right. Files may be plain, .gz or .zip.

Shapes: V vocabulary, E width of the vectors.
"""

import gzip
import lzma
import warnings
import zipfile
import zlib
from collections.abc import Container, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from charlm.errors import VectorsError
from charlm.text.words import JOIN, LINE_END_WORD, NEWLINE, UNKNOWN_WORD

Vectors = npt.NDArray[np.float32]

BLOCK_BYTES = 1 << 18
"""Files are read in blocks of so many bytes: larger ones fall out of the processor's cache."""

BLOCK_ROWS = 4096
"""So many rows are parsed at a time."""

MOST_LINE_BYTES = 1 << 24
"""A line that is longer is none."""

LINE_END_IN_FILES = "</s>"
"""What word2vec calls a line's end; a newline cannot stand in such a file."""

DAMAGED = (
    *(EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile),
    *(NotImplementedError, RuntimeError, ValueError),  # zipfile's, of an archive that is encrypted or makes no sense
)

GREATEST = float(np.finfo(np.float32).max)

MISSING_SHOWN = 10
"""Words not found that a report names, the most frequent first."""


class VectorFile:
    """A file of word vectors.

    Args:
        path: The file.

    Attributes:
        path: The file.
        dim: E, from the header or the first line.

    Raises:
        VectorsError: If it is missing, empty, damaged, or no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with closing(self._blocks()) as found:
            first = next(found, b"").partition(b"\n")[0].split()
        self._has_header = len(first) == 2 and all(field.isdigit() for field in first)
        if self._has_header:
            self.dim = int(first[1])
        else:
            numbers = 0  # a word with spaces inside may come first: count the numbers from the right
            while numbers < len(first) - 1 and _is_number(first[-1 - numbers]):
                numbers += 1
            self.dim = numbers
        if self.dim < 1:
            what = "line 1: no word vector, which is a word and its numbers" if first else "empty"
            raise VectorsError(f"{path}: {what}; give a text file in GloVe's or word2vec's form")

    def rows(self) -> Iterator[tuple[int, list[bytes], list[bytes]]]:
        """Go through the file.

        Yields:
            The number of a line, the lines from there on, and what stands before the first space in each; the lines
            are long enough, or blank, and their words are UTF-8.

        Raises:
            VectorsError: If a line is too short or not UTF-8, naming it.
        """
        number = 1
        for block in self._blocks():
            lines = block.split(b"\n")
            if not lines[-1]:
                lines.pop()
            if number == 1 and self._has_header:
                lines, number = lines[1:], 2
                block = b"\n".join(lines)
            heads = [line[: line.find(b" ")] for line in lines]
            self._check(block, number, lines, heads)
            yield number, lines, heads
            number += len(lines)

    def cut(self, line: bytes) -> tuple[str, bytes]:
        """Cut a line into the word, spaces inside it and all, and its numbers."""
        if line.count(b" ") == self.dim:
            word, _, numbers = line.partition(b" ")
        else:
            word, *fields = line.rstrip().rsplit(b" ", self.dim)
            numbers = b" ".join(fields)
        return word.decode(errors="replace"), numbers

    def parse(self, places: Sequence[int], texts: Sequence[bytes]) -> Vectors:
        """The numbers of some lines, (number of lines, E), float32.

        Raises:
            VectorsError: If a line has others than E numbers, naming it.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", DeprecationWarning)  # how older versions of NumPy say it
                vectors: Vectors = np.fromstring(b" ".join(texts).decode("latin-1"), dtype=np.float32, sep=" ")
        except (ValueError, DeprecationWarning):
            vectors = np.empty(0, dtype=np.float32)
        if len(vectors) == len(texts) * self.dim and np.isfinite(vectors).all():
            return vectors.reshape(len(texts), self.dim)
        for place, text in zip(places, texts, strict=True):
            fields = text.split()
            if len(fields) != self.dim:
                raise self._too_short(place, len(fields))
            for field in fields:
                if not _is_number(field):
                    raise VectorsError(f"{self.path}, line {place:,}: {field.decode(errors='replace')!r} is no number")
        raise AssertionError("one of the lines has a fault")

    def _check(self, block: bytes, number: int, lines: list[bytes], heads: list[bytes]) -> None:
        """Look at the whole block first, which is cheap, and at its lines only if something is odd about it."""
        spaces = np.count_nonzero(np.frombuffer(block, dtype=np.uint8) == ord(" "))
        if spaces != len(lines) * self.dim:
            for place, line in enumerate(lines, start=number):
                if line.count(b" ") < self.dim and line.strip():
                    raise self._too_short(place, len(line.split()) - 1)
        if block.isascii():
            return
        text = b"\n".join(heads)
        try:
            text.decode()
        except UnicodeDecodeError as error:
            place = number + text.count(b"\n", 0, error.start)
            raise VectorsError(f"{self.path}, line {place:,}: not UTF-8 ({error.reason}); convert the file") from None

    def _too_short(self, place: int, found: int) -> VectorsError:
        return VectorsError(f"{self.path}, line {place:,}: {found} numbers where there should be {self.dim}")

    def _blocks(self) -> Generator[bytes, None, None]:
        """The file in blocks of whole lines; what may go wrong while it is read becomes a `VectorsError`."""
        try:
            with ExitStack() as stack:
                file, rest = self._open(stack), b""
                while data := file.read(BLOCK_BYTES):
                    data = rest + data
                    end = data.rfind(b"\n") + 1
                    rest = data[end:]
                    if end:
                        yield data[:end]
                    elif len(rest) > MOST_LINE_BYTES:
                        raise VectorsError(f"{self.path}: a line without an end; this is no text file of vectors")
                if rest:
                    yield rest
        except DAMAGED as error:
            raise VectorsError(f"{self.path}: not a whole {self.path.suffix[1:]} file ({error})") from None
        except OSError as error:
            raise VectorsError(f"{self.path}: cannot be read ({error.strerror or error})") from None

    def _open(self, stack: ExitStack) -> Any:  # noqa: ANN401 - three readers that share no type
        if self.path.suffix == ".gz":
            return stack.enter_context(gzip.open(self.path))
        if self.path.suffix != ".zip":
            return stack.enter_context(self.path.open("rb", buffering=0))
        archive = stack.enter_context(zipfile.ZipFile(self.path))
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if len(names) != 1:
            inside = ", ".join(names) or "nothing"
            raise VectorsError(f"{self.path}: holds {inside}; unpack it and give the one file")
        return stack.enter_context(archive.open(names[0]))


def _is_number(field: bytes) -> bool:
    try:
        return b"_" not in field and abs(float(field)) <= GREATEST
    except ValueError:
        return False


def read_vectors(file: VectorFile, words: Iterable[str]) -> dict[str, Vectors]:
    """The vectors of some words, (E,) each; those that the file lacks are left out.

    A word that comes twice has its first vector.

    Raises:
        VectorsError: If a line is too short, no UTF-8 or has no numbers, naming it.
    """
    wanted = set(words)
    beginnings = {word.partition(" ")[0].encode() for word in wanted}
    found: dict[str, Vectors] = {}
    for names, vectors in _parsed(file, beginnings):
        for name, vector in zip(names, vectors, strict=True):
            if name in wanted:
                found.setdefault(name, vector)
    return found


def _parsed(file: VectorFile, beginnings: Container[bytes] | None = None) -> Iterator[tuple[list[str], Vectors]]:
    """The words and vectors of a file, some at a time; if asked for, only those of lines that begin so."""
    places: list[int] = []
    words: list[str] = []
    texts: list[bytes] = []
    for number, lines, heads in file.rows():
        wanted = range(len(lines)) if beginnings is None else [i for i, head in enumerate(heads) if head in beginnings]
        for index in wanted:
            if lines[index].strip():
                word, numbers = file.cut(lines[index])
                places.append(number + index)
                words.append(word)
                texts.append(numbers)
        if len(words) >= BLOCK_ROWS:
            yield words, file.parse(places, texts)
            places, words, texts = [], [], []
    if words:
        yield words, file.parse(places, texts)


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How much of a vocabulary a file of vectors knows.

    Attributes:
        file: The file.
        dim: E.
        types: Words of the vocabulary.
        types_found: How many of them have a vector.
        types_in_lower_case: How many of these have that of the lower-case word.
        tokens: Running words of the text.
        tokens_found: How many of them have a vector.
        missing: The most frequent words not found.
    """

    file: str
    dim: int
    types: int
    types_found: int
    types_in_lower_case: int
    tokens: int
    tokens_found: int
    missing: list[str]

    def __str__(self) -> str:
        lacking = f"; the most frequent not found: {' '.join(self.missing)}" if self.missing else ""
        return (
            f"{self.file}: {self.types_found:,} of {self.types:,} words found "
            f"({self.types_found / max(1, self.types):.1%}; {self.types_in_lower_case:,} of them in lower case), "
            f"{self.tokens_found / max(1, self.tokens):.1%} of the running words{lacking}"
        )


def embed_vocabulary(
    file: VectorFile, tokens: Sequence[str], counts: npt.NDArray[np.integer[Any]], *, seed: int
) -> tuple[Vectors, Coverage]:
    """Make the embedding of a vocabulary from a file of word vectors.

    A word that the file lacks takes the vector of its lower-case form, and if that is lacking too, one drawn with
    the mean and the spread that the known vectors have in each of their numbers.

    Args:
        file: The vectors.
        tokens: The vocabulary, the unknown token first.
        counts: How often each token comes in the text, (V,).
        seed: Of the vectors drawn.

    Returns:
        The embedding, (V, E), and what was found.

    Raises:
        VectorsError: If the file is damaged, or knows no word at all of the vocabulary.
    """
    names = [_name_in_files(token) for token in tokens]
    known = read_vectors(file, {form for name in names for form in (name, name.lower())})
    in_file = np.array([name in known for name in names])
    in_lower_case = np.array([name.lower() in known for name in names]) & ~in_file
    found = in_file | in_lower_case
    if not found.any():
        raise VectorsError(f"{file.path}: none of the {len(tokens):,} words of the vocabulary is in it")
    vectors = np.array([known.get(name, known.get(name.lower())) for name in np.array(names)[found]])
    drawn = np.random.default_rng(seed).standard_normal((len(tokens), file.dim))
    embedding: Vectors = (vectors.mean(axis=0) + vectors.std(axis=0) * drawn).astype(np.float32)
    embedding[found] = vectors
    is_word = np.array([not token.isspace() and token not in (UNKNOWN_WORD, LINE_END_WORD, JOIN) for token in tokens])
    lacking = np.flatnonzero(is_word & ~found)
    frequent = lacking[np.argsort(-counts[lacking], kind="stable")][:MISSING_SHOWN]
    return embedding, Coverage(
        file=str(file.path),
        dim=file.dim,
        types=int(is_word.sum()),
        types_found=int((is_word & found).sum()),
        types_in_lower_case=int((is_word & in_lower_case).sum()),
        tokens=int(counts[is_word].sum()),
        tokens_found=int(counts[is_word & found].sum()),
        missing=[tokens[index] for index in frequent],
    )


def write_vectors(out: TextIO, tokens: Sequence[str], vectors: Vectors) -> None:
    """Write vectors in GloVe's form, each number as the shortest text that reads back as the same float32."""
    for token, vector in zip(tokens, vectors, strict=True):
        out.write(f"{_name_in_files(token)} {' '.join(map(str, vector))}\n")


def nearest_in_file(file: VectorFile, word: str, top: int) -> list[tuple[str, float]]:
    """The words of a file whose vectors are nearest to a word's by cosine, the nearest first.

    Raises:
        VectorsError: If the file lacks the word, or is damaged.
    """
    vectors = read_vectors(file, {word, word.lower()})
    if word not in vectors and word.lower() not in vectors:
        raise VectorsError(f"{word!r}: not in {file.path}")
    found = word if word in vectors else word.lower()
    best: list[tuple[str, float]] = []
    for words, block in _parsed(file):
        best = sorted(best + nearest(words, block, vectors[found], top, leave_out=found), key=lambda pair: -pair[1])
        best = best[:top]
    return best


def nearest(
    words: Sequence[str], vectors: Vectors, vector: Vectors, top: int, *, leave_out: str
) -> list[tuple[str, float]]:
    """The words nearest to a vector by cosine, the nearest first, with the cosine.

    Args:
        words: V of them.
        vectors: Theirs, (V, E).
        vector: (E,).
        top: How many to give.
        leave_out: The word that the vector is of.
    """
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(vector)
    cosines = (vectors @ vector) / np.maximum(lengths, np.finfo(np.float32).tiny)
    order = np.argsort(-cosines, kind="stable")[: top + 1]
    return [(words[index], float(cosines[index])) for index in order if words[index] != leave_out][:top]


def _name_in_files(token: str) -> str:
    return LINE_END_IN_FILES if token in (NEWLINE, LINE_END_WORD) else token
