"""Files of word vectors, in GloVe's format or in word2vec's text format, plain, .gz or .zip.

Each line is a word and the numbers of its vector. word2vec's format has a header line before them. Parsing numbers
takes most of the time. Therefore, the word is read first, and only lines of wanted words are parsed. A word may contain
spaces, as some in GloVe's 840B file do, so that numbers are counted from the right.

Shapes: V vocabulary, E embedding.
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
"""Number of bytes read at a time. Larger blocks do not fit into the processor's cache."""

BLOCK_ROWS = 4096
"""Number of lines parsed at a time."""

MAX_LINE_BYTES = 1 << 24
"""Maximum length of a line in bytes. A file with a longer line is not a file of word vectors."""

NEWLINE_IN_FILES = "</s>"
"""Word that represents a newline, as in word2vec's files. A newline itself cannot be a word in such a file."""

DAMAGED = (
    *(EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile),
    *(NotImplementedError, RuntimeError, ValueError),  # from zipfile, if an archive is encrypted or inconsistent
)
"""Exceptions that reading a damaged .gz or .zip file raises."""

MAX_FLOAT32 = float(np.finfo(np.float32).max)

MAX_MISSING_SHOWN = 10
"""Maximum number of missing words that `Coverage` names."""


class VectorFile:
    """A file of word vectors.

    Args:
        path: The file.

    Attributes:
        path: As given.
        dim: E, from the header or the first line.

    Raises:
        VectorsError: If the file is missing, empty, damaged, or not a file of word vectors.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with closing(self._blocks()) as blocks:
            first = next(blocks, b"").partition(b"\n")[0].split()
        self._has_header = len(first) == 2 and all(field.isdigit() for field in first)
        self.dim = int(first[1]) if self._has_header else _count_numbers(first)
        if self.dim < 1:
            problem = "line 1: no word vector (a word and its numbers)" if first else "empty"
            raise VectorsError(f"{path}: {problem}; give a text file in GloVe's or word2vec's format")

    def rows(self) -> Iterator[tuple[int, list[bytes], list[bytes]]]:
        """Read the file block by block.

        Yields:
            Number of the first line of a block, its lines, and for each line the bytes before its first space. Lines
            have at least E numbers or are blank, and their words are valid UTF-8.

        Raises:
            VectorsError: If a line has too few numbers or is not valid UTF-8.
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
            self._check_block(block, number, lines, heads)
            yield number, lines, heads
            number += len(lines)

    def split_line(self, line: bytes) -> tuple[str, bytes]:
        """Split a line into the word, which may contain spaces, and its numbers."""
        if line.count(b" ") == self.dim:
            word, _, numbers = line.partition(b" ")
        else:
            word, *fields = line.rstrip().rsplit(b" ", self.dim)
            numbers = b" ".join(fields)
        return word.decode(errors="replace"), numbers

    def parse(self, line_numbers: Sequence[int], fields: Sequence[bytes]) -> Vectors:
        """Parse the numbers of N lines.

        Args:
            line_numbers: Line numbers, for error messages.
            fields: Numbers of each line, separated by spaces.

        Returns:
            The vectors, (N, E), float32.

        Raises:
            VectorsError: If a line does not have E finite numbers.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", DeprecationWarning)  # how older versions of NumPy report invalid text
                vectors: Vectors = np.fromstring(b" ".join(fields).decode("latin-1"), dtype=np.float32, sep=" ")
        except (ValueError, DeprecationWarning):
            vectors = np.empty(0, dtype=np.float32)
        if len(vectors) == len(fields) * self.dim and np.isfinite(vectors).all():
            return vectors.reshape(len(fields), self.dim)
        for line_number, line in zip(line_numbers, fields, strict=True):
            numbers = line.split()
            if len(numbers) != self.dim:
                raise self._wrong_length(line_number, len(numbers))
            for number in numbers:
                if not _is_number(number):
                    shown = repr(number.decode(errors="replace"))
                    raise self._line_error(line_number, f"{shown} is not a finite float32 number; correct the line")
        raise AssertionError("one of the lines is invalid")

    def _check_block(self, block: bytes, line_number: int, lines: list[bytes], heads: list[bytes]) -> None:
        """Check that lines have enough numbers and that words are valid UTF-8.

        The number of spaces in the whole block is checked first, which is fast. Its lines are checked one by one only
        if that number is unexpected.
        """
        spaces = np.count_nonzero(np.frombuffer(block, dtype=np.uint8) == ord(" "))
        if spaces != len(lines) * self.dim:
            for number, line in enumerate(lines, start=line_number):
                if line.count(b" ") < self.dim and line.strip():
                    raise self._wrong_length(number, len(line.split()) - 1)
        if block.isascii():
            return
        text = b"\n".join(heads)
        try:
            text.decode()
        except UnicodeDecodeError as error:
            number = line_number + text.count(b"\n", 0, error.start)
            raise self._line_error(number, f"not valid UTF-8 ({error.reason}); convert the file to UTF-8") from None

    def _line_error(self, line_number: int, problem: str) -> VectorsError:
        return VectorsError(f"{self.path}: line {line_number:,}: {problem}")

    def _wrong_length(self, line_number: int, found: int) -> VectorsError:
        return self._line_error(line_number, f"{found} numbers instead of {self.dim}; correct the line")

    def _blocks(self) -> Generator[bytes, None, None]:
        """Read the file in blocks of complete lines, and turn expected exceptions into `VectorsError`."""
        try:
            with ExitStack() as stack:
                file, rest = self._open(stack), b""
                while data := file.read(BLOCK_BYTES):
                    data = rest + data
                    end = data.rfind(b"\n") + 1
                    rest = data[end:]
                    if end:
                        yield data[:end]
                    elif len(rest) > MAX_LINE_BYTES:
                        raise VectorsError(
                            f"{self.path}: a line of more than {MAX_LINE_BYTES:,} bytes; give a text file in GloVe's "
                            "or word2vec's format"
                        )
                if rest:
                    yield rest
        except DAMAGED as error:
            raise VectorsError(f"{self.path}: not a valid {self.path.suffix[1:]} file ({error})") from None
        except OSError as error:
            raise VectorsError(f"{self.path}: cannot be read ({error.strerror or error})") from None

    def _open(self, stack: ExitStack) -> Any:  # noqa: ANN401 - three readers without a common type
        if self.path.suffix == ".gz":
            return stack.enter_context(gzip.open(self.path))
        if self.path.suffix != ".zip":
            return stack.enter_context(self.path.open("rb", buffering=0))
        archive = stack.enter_context(zipfile.ZipFile(self.path))
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if len(names) != 1:
            content = ", ".join(names) or "no file"
            raise VectorsError(f"{self.path}: contains {content}; unpack it and give one file")
        return stack.enter_context(archive.open(names[0]))


def _count_numbers(fields: Sequence[bytes]) -> int:
    """Return the number of numeric fields at the end of a line. The first field is not counted."""
    count = 0
    while count < len(fields) - 1 and _is_number(fields[-1 - count]):
        count += 1
    return count


def _is_number(field: bytes) -> bool:
    try:
        return b"_" not in field and abs(float(field)) <= MAX_FLOAT32
    except ValueError:
        return False


def read_vectors(file: VectorFile, words: Iterable[str]) -> dict[str, Vectors]:
    """Return the vectors of those words that a file contains.

    Args:
        file: The file of word vectors.
        words: Words to look for.

    Returns:
        The vector of each word found, (E,), float32. If a word occurs twice, its first vector is returned.

    Raises:
        VectorsError: If a line has too few numbers, is not valid UTF-8, or has invalid numbers for one of the words.
    """
    wanted = set(words)
    heads = {word.partition(" ")[0].encode() for word in wanted}
    found: dict[str, Vectors] = {}
    for names, vectors in _parse_blocks(file, heads):
        for name, vector in zip(names, vectors, strict=True):
            if name in wanted:
                found.setdefault(name, vector)
    return found


def _parse_blocks(
    file: VectorFile, wanted_heads: Container[bytes] | None = None
) -> Iterator[tuple[list[str], Vectors]]:
    """Yield words and vectors of a file, about `BLOCK_ROWS` at a time.

    Args:
        file: The file of word vectors.
        wanted_heads: If given, only lines are parsed whose bytes before the first space are among these.
    """
    line_numbers: list[int] = []
    words: list[str] = []
    fields: list[bytes] = []
    for first_number, lines, heads in file.rows():
        wanted = (
            range(len(lines)) if wanted_heads is None else [i for i, head in enumerate(heads) if head in wanted_heads]
        )
        for index in wanted:
            if lines[index].strip():
                word, numbers = file.split_line(lines[index])
                line_numbers.append(first_number + index)
                words.append(word)
                fields.append(numbers)
        if len(words) >= BLOCK_ROWS:
            yield words, file.parse(line_numbers, fields)
            line_numbers, words, fields = [], [], []
    if words:
        yield words, file.parse(line_numbers, fields)


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Share of a vocabulary for which a file has word vectors.

    Attributes:
        file: Name of the file.
        dim: E.
        types: Number of words in the vocabulary.
        types_found: Number of words that have a vector.
        types_in_lower_case: Number of words whose vector is that of their lower-case form.
        tokens: Number of words in the text.
        tokens_found: Number of words in the text that have a vector.
        missing: The most frequent words without a vector.
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
        missing = f"; the most frequent not found: {' '.join(self.missing)}" if self.missing else ""
        return (
            f"{self.file}: {self.types_found:,} of {self.types:,} words found "
            f"({self.types_found / max(1, self.types):.1%}; {self.types_in_lower_case:,} of them in lower case), "
            f"{self.tokens_found / max(1, self.tokens):.1%} of the running words{missing}"
        )


def embed_vocabulary(
    file: VectorFile, tokens: Sequence[str], counts: npt.NDArray[np.integer[Any]], *, seed: int
) -> tuple[Vectors, Coverage]:
    """Return the embedding of a vocabulary, taken from a file of word vectors.

    A word that is not in the file has the vector of its lower-case form. If that is not in the file either, its vector
    is drawn from a normal distribution with the mean and the standard deviation of each component of the vectors found.

    Args:
        file: The file of word vectors.
        tokens: The vocabulary, beginning with the unknown token.
        counts: Number of occurrences of each token in the text, (V,).
        seed: Seed of the vectors that are drawn.

    Returns:
        The embedding, (V, E), float32, and its coverage.

    Raises:
        VectorsError: If the file is damaged, or contains no word of the vocabulary.
    """
    names = [_name_in_files(token) for token in tokens]
    known = read_vectors(file, {form for name in names for form in (name, name.lower())})
    exact = np.array([name in known for name in names])
    in_lower_case = np.array([name.lower() in known for name in names]) & ~exact
    found = exact | in_lower_case
    if not found.any():
        raise VectorsError(
            f"{file.path}: none of the {len(tokens):,} words of the vocabulary is in this file; give word vectors for "
            "the language of the text"
        )
    vectors = np.array([known.get(name, known.get(name.lower())) for name in np.array(names)[found]])
    drawn = np.random.default_rng(seed).standard_normal((len(tokens), file.dim))
    embedding: Vectors = (vectors.mean(axis=0) + vectors.std(axis=0) * drawn).astype(np.float32)
    embedding[found] = vectors
    return embedding, _coverage(file, tokens, counts, found, in_lower_case)


def _coverage(
    file: VectorFile,
    tokens: Sequence[str],
    counts: npt.NDArray[np.integer[Any]],
    found: npt.NDArray[np.bool_],
    in_lower_case: npt.NDArray[np.bool_],
) -> Coverage:
    """Return the coverage of the words of a vocabulary, without its special tokens and whitespace."""
    special = (UNKNOWN_WORD, LINE_END_WORD, JOIN)
    is_word = np.array([not token.isspace() and token not in special for token in tokens])
    missing = np.flatnonzero(is_word & ~found)
    most_frequent = missing[np.argsort(-counts[missing], kind="stable")][:MAX_MISSING_SHOWN]
    return Coverage(
        file=str(file.path),
        dim=file.dim,
        types=int(is_word.sum()),
        types_found=int((is_word & found).sum()),
        types_in_lower_case=int((is_word & in_lower_case).sum()),
        tokens=int(counts[is_word].sum()),
        tokens_found=int(counts[is_word & found].sum()),
        missing=[tokens[index] for index in most_frequent],
    )


def write_vectors(out: TextIO, tokens: Sequence[str], vectors: Vectors) -> None:
    """Write vectors, (V, E), in GloVe's format.

    Each number is written with the fewest digits from which the same float32 is read.
    """
    for token, vector in zip(tokens, vectors, strict=True):
        out.write(f"{_name_in_files(token)} {' '.join(map(str, vector))}\n")


def nearest_in_file(file: VectorFile, word: str, top: int) -> list[tuple[str, float]]:
    """Return the words of a file whose vectors have the largest cosine with the vector of a word.

    Args:
        file: The file of word vectors.
        word: The word. If it is not in the file, its lower-case form is used.
        top: Maximum number of words.

    Returns:
        Pairs of word and cosine, by falling cosine, without the word itself.

    Raises:
        VectorsError: If the word is not in the file, or the file is damaged.
    """
    vectors = read_vectors(file, {word, word.lower()})
    if word not in vectors and word.lower() not in vectors:
        raise VectorsError(f"{word!r}: not in {file.path}")
    found = word if word in vectors else word.lower()
    best: list[tuple[str, float]] = []
    for words, block in _parse_blocks(file):
        best = sorted(best + nearest(words, block, vectors[found], top, leave_out=found), key=lambda pair: -pair[1])
        best = best[:top]
    return best


def nearest(
    words: Sequence[str], vectors: Vectors, vector: Vectors, top: int, *, leave_out: str
) -> list[tuple[str, float]]:
    """Return the words whose vectors have the largest cosine with a vector.

    Args:
        words: The vocabulary.
        vectors: Their vectors, (V, E).
        vector: The vector to compare with, (E,).
        top: Maximum number of words.
        leave_out: Word that is not returned: the word of `vector`.

    Returns:
        Pairs of word and cosine, by falling cosine.
    """
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(vector)
    cosines = (vectors @ vector) / np.maximum(norms, np.finfo(np.float32).tiny)
    order = np.argsort(-cosines, kind="stable")[: top + 1]
    return [(words[index], float(cosines[index])) for index in order if words[index] != leave_out][:top]


def _name_in_files(token: str) -> str:
    return NEWLINE_IN_FILES if token in (NEWLINE, LINE_END_WORD) else token
