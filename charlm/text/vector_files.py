"""Readers of files of word vectors: GloVe's format and word2vec's text and binary formats, plain, .gz or .zip.

In the text formats, each line is a word and the numbers of its vector, separated by spaces or tabs. word2vec's formats
have a header line with the number of vectors and E. In the binary format, E little-endian float32 numbers follow each
word and a space. Parsing numbers takes most of the time. Therefore, only the vectors of wanted words are parsed. A word
may contain spaces, as some in GloVe's 840B file do, so that numbers are counted from the right.

Shapes: N vectors, E embedding.
"""

import codecs
import warnings
from collections import Counter
from collections.abc import Container, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from charlm.errors import VectorsError
from charlm.text.packed_files import PackedFile

Vectors = npt.NDArray[np.float32]

BLOCK_ROWS = 4096
"""Number of lines parsed at a time."""

MAX_LINE_BYTES = 1 << 24
"""Maximum length of a line or a word in bytes. A file with a longer one is not a file of word vectors."""

BEGINNING_BYTES = 4096
"""Number of bytes from which the format is found out."""

MAX_DIM = 1 << 16
"""Maximum E that a header may state."""

MAX_FLOAT32 = float(np.finfo(np.float32).max)

NUMBER_BYTES = frozenset(b"0123456789+-.eE \t\r\n")
"""Bytes of numbers in a text file."""


class VectorFile:
    """A file of word vectors. It can be read any number of times.

    Args:
        path: The file; `-` is standard input, which is copied to a temporary file.

    Attributes:
        path: As given.
        dim: E, from the header or the first line.

    Raises:
        VectorsError: If the file is missing, empty, damaged, or not a file of word vectors.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = PackedFile(path)
        self._name = self._file.name
        self._header_bytes = 0  # including a byte order mark
        self._num_vectors: int | None = None  # from the header
        self._is_binary = False
        self._read_header(self._beginning())

    def blocks(self, wanted_heads: Container[bytes] | None = None) -> Iterator[tuple[list[str], Vectors]]:
        """Read words and their vectors, about `BLOCK_ROWS` at a time.

        Args:
            wanted_heads: If given, only vectors are parsed whose words, up to their first space, are among these.

        Raises:
            VectorsError: If the file is damaged.
        """
        return self._binary_blocks(wanted_heads) if self._is_binary else self._text_blocks(wanted_heads)

    def read(self, words: Iterable[str]) -> dict[str, Vectors]:
        """Return the vectors of those words that the file contains.

        Args:
            words: Words to look for.

        Returns:
            The vector of each word found, (E,), float32. If a word occurs twice, its first vector is returned.

        Raises:
            VectorsError: If the file is damaged, or a number of one of the words is invalid.
        """
        wanted = set(words)
        heads = {word.partition(" ")[0].encode("utf-8", "surrogateescape") for word in wanted}
        found: dict[str, Vectors] = {}
        for names, vectors in self.blocks(heads):
            for name, vector in zip(names, vectors, strict=True):
                if name in wanted:
                    found.setdefault(name, vector)
        return found

    def _beginning(self) -> bytes:
        """Return the first bytes of the file: a complete line at least, and `BEGINNING_BYTES` if there are as many."""
        data = b""
        with closing(self._file.chunks()) as chunks:
            for chunk in chunks:
                data += chunk
                if (b"\n" in data and len(data) >= BEGINNING_BYTES) or len(data) > MAX_LINE_BYTES:
                    break
        return data

    def _read_header(self, data: bytes) -> None:
        """Find out the format from the first bytes: the header, E, and whether vectors are binary."""
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise VectorsError(f"{self._name}: in UTF-16; convert the file to UTF-8")
        mark = codecs.BOM_UTF8 if data.startswith(codecs.BOM_UTF8) else b""
        first, newline, rest = data.removeprefix(mark).partition(b"\n")
        if not newline and len(data) > MAX_LINE_BYTES:
            raise self._long_line()
        self._header_bytes = len(mark)
        fields = first.split()
        if len(fields) == 2 and all(field.isdigit() and len(field) < 12 for field in fields):
            self._header_bytes += len(first) + len(newline)
            self._num_vectors, self.dim = map(int, fields)
            self._is_binary = self.path.name.endswith((".bin", ".bin.gz")) or _looks_binary(rest, self.dim)
        else:
            complete = [line.split() for line in (first, *rest.split(b"\n", 3)[:2]) if line.strip()]
            counts = Counter(_count_numbers(line) for line in complete)
            self.dim = counts.most_common(1)[0][0] if counts else 0  # so that an error in line 1 is found there
        if not 1 <= self.dim <= MAX_DIM:
            problem = "line 1: no word vector (a word and its numbers)" if fields else "empty"
            raise VectorsError(f"{self._name}: {problem}; give a file in GloVe's or word2vec's format")

    def _text_blocks(self, wanted_heads: Container[bytes] | None) -> Iterator[tuple[list[str], Vectors]]:
        line_numbers: list[int] = []
        words: list[str] = []
        fields: list[bytes] = []
        for first_number, lines, heads in self._rows():
            wanted = (
                range(len(lines))
                if wanted_heads is None
                else [index for index, head in enumerate(heads) if head in wanted_heads]
            )
            for index in wanted:
                if lines[index].strip():
                    word, numbers = self._split_line(first_number + index, lines[index])
                    line_numbers.append(first_number + index)
                    words.append(word)
                    fields.append(numbers)
            if len(words) >= BLOCK_ROWS:
                yield words, self._parse(line_numbers, fields)
                line_numbers, words, fields = [], [], []
        if words:
            yield words, self._parse(line_numbers, fields)

    def _rows(self) -> Iterator[tuple[int, list[bytes], list[bytes]]]:
        """Read a text file block by block.

        Yields:
            Number of the first line of a block, its lines, and for each line the bytes before its first space. Lines
            have at least E numbers, separated by single spaces, or are blank, and their words are valid UTF-8.

        Raises:
            VectorsError: If a line has too few numbers or is not valid UTF-8, or if the number of vectors is not that
                of the header.
        """
        number, num_vectors = 1, 0
        for block in self._raw_blocks():
            data = block
            if number == 1:
                data = block[self._header_bytes :]
                number += self._num_vectors is not None
            if data.isspace():  # a small compressed file may have billions of blank lines
                number += data.count(b"\n")
                continue
            lines = data.split(b"\n")
            if not lines[-1]:
                lines.pop()
            # The number of spaces in the whole block is checked first, which is fast.
            spaces = np.count_nonzero(np.frombuffer(data, dtype=np.uint8) == ord(" "))
            if spaces != len(lines) * self.dim or b"\t" in data:
                lines = [self._with_single_spaces(number + index, line) for index, line in enumerate(lines)]
            heads = [line[: line.find(b" ")] for line in lines]
            self._check_words(number, lines, heads)
            yield number, lines, heads
            number += len(lines)
            if self._num_vectors is not None:
                num_vectors += sum(not line.isspace() for line in lines if line)
        if self._num_vectors not in (None, num_vectors):
            raise VectorsError(
                f"{self._name}: {num_vectors:,} vectors, but its header says {self._num_vectors:,}; the file may be "
                "incomplete: get it again, or correct the header"
            )

    def _with_single_spaces(self, line_number: int, line: bytes) -> bytes:
        """Return a line with one space before each number, or an empty line.

        Raises:
            VectorsError: If the line has too few numbers.
        """
        if line.count(b" ") == self.dim and b"\t" not in line:
            return line
        word, *numbers = line.rstrip().rsplit(None, self.dim) or [b""]
        if len(numbers) == self.dim:
            return b" ".join([word.strip().replace(b"\t", b" "), *numbers])
        whitespace = line[: len(line) - len(line.lstrip())]
        if line.strip() and (len(numbers) < self.dim - 1 or not whitespace):
            raise self._wrong_length(line_number, len(numbers))
        # A word of whitespace, as earlier versions wrote it, is followed by a space and E numbers.
        return b" ".join([whitespace[:-1], word, *numbers]) if line.strip() else b""

    def _check_words(self, line_number: int, lines: list[bytes], heads: list[bytes]) -> None:
        """Check that words are not empty, and valid UTF-8."""
        if b"" in heads:
            for number, line in enumerate(lines, start=line_number):
                if line[:1] == b" " and line[1:2] != b" ":
                    raise self._line_error(number, "no word before the numbers; correct the line")
        text = b"\n".join(heads)
        if text.isascii():
            return
        try:
            text.decode()
        except UnicodeDecodeError as error:
            number = line_number + text.count(b"\n", 0, error.start)
            raise self._line_error(number, f"not valid UTF-8 ({error.reason}); convert the file to UTF-8") from None

    def _split_line(self, line_number: int, line: bytes) -> tuple[str, bytes]:
        """Split a line into the word, which may contain spaces, and its numbers."""
        if line.count(b" ") == self.dim:
            word, _, numbers = line.partition(b" ")
        else:
            word, *fields = line.rstrip().rsplit(b" ", self.dim)
            numbers = b" ".join(fields)
            pieces = word.split()
            if len(pieces) > 1 and _is_number(pieces[-1]):  # no word, but a number too many
                raise self._wrong_length(line_number, self.dim + _count_numbers(pieces))
        return word.decode(errors="replace"), numbers

    def _parse(self, line_numbers: Sequence[int], fields: Sequence[bytes]) -> Vectors:
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

    def _binary_blocks(self, wanted_heads: Container[bytes] | None) -> Iterator[tuple[list[str], Vectors]]:
        numbers: list[int] = []
        words: list[str] = []
        rows: list[bytes] = []
        for number, word, row in self._binary_rows():
            if wanted_heads is None or word in wanted_heads:
                try:
                    words.append(word.decode())
                except UnicodeDecodeError as error:
                    raise self._vector_error(number, f"its word is not valid UTF-8 ({error.reason})") from None
                numbers.append(number)
                rows.append(row)
            if len(words) >= BLOCK_ROWS:
                yield words, self._unpack(numbers, rows)
                numbers, words, rows = [], [], []
        if words:
            yield words, self._unpack(numbers, rows)

    def _binary_rows(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield the number of each vector of a binary file, its word, and its bytes."""
        assert self._num_vectors is not None, "a binary file has a header"
        with closing(self._file.chunks()) as chunks:
            data, begin, row_bytes = b"", self._header_bytes, 4 * self.dim
            for number in range(1, self._num_vectors + 1):
                while (end := data.find(b" ", begin)) < 0 or len(data) <= end + row_bytes:
                    chunk = next(chunks, b"")
                    if not chunk:
                        raise self._vector_error(number, f"incomplete; the header says {self._num_vectors:,} vectors")
                    if end < 0 and len(data) - begin > MAX_LINE_BYTES:
                        raise self._vector_error(number, "no word; the file is damaged or not in word2vec's format")
                    data, begin = data[begin:] + chunk, max(0, begin - len(data))
                yield number, data[begin:end].lstrip(b"\n"), data[end + 1 : end + 1 + row_bytes]
                begin = end + 1 + row_bytes

    def _unpack(self, numbers: Sequence[int], rows: Sequence[bytes]) -> Vectors:
        """Return the vectors of N rows of a binary file, (N, E), float32."""
        vectors: Vectors = np.frombuffer(b"".join(rows), dtype="<f4").reshape(len(rows), self.dim).astype(np.float32)
        for row in np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist():
            raise self._vector_error(numbers[row], "a number is not finite")
        return vectors

    def _line_error(self, line_number: int, problem: str) -> VectorsError:
        return VectorsError(f"{self._name}: line {line_number:,}: {problem}")

    def _vector_error(self, number: int, problem: str) -> VectorsError:
        return VectorsError(f"{self._name}: vector {number:,}: {problem}; get the file again")

    def _long_line(self) -> VectorsError:
        return VectorsError(
            f"{self._name}: a line of more than {MAX_LINE_BYTES:,} bytes; give a file in GloVe's or word2vec's format"
        )

    def _wrong_length(self, line_number: int, found: int) -> VectorsError:
        return self._line_error(line_number, f"{found} numbers instead of {self.dim}; correct the line")

    def _raw_blocks(self) -> Generator[bytes, None, None]:
        """Read the file in blocks of complete lines."""
        rest = b""
        with closing(self._file.chunks()) as chunks:
            for chunk in chunks:
                data = rest + chunk
                end = data.rfind(b"\n") + 1
                rest = data[end:]
                if end:
                    yield data[:end]
                elif len(rest) > MAX_LINE_BYTES:
                    raise self._long_line()
        if rest:
            yield rest


def _looks_binary(data: bytes, dim: int) -> bool:
    """Return True if the bytes after the header are not a word and numbers in text form.

    In text form, at least 2E - 1 bytes after the word, or those up to the end of the line, are digits, signs, points
    and spaces.
    """
    numbers = data[data.find(b" ") + 1 :][: min(2 * dim - 1, 256)].partition(b"\n")[0].lower()
    is_text = bool(numbers) and NUMBER_BYTES.issuperset(numbers.replace(b"nan", b"").replace(b"inf", b""))
    return bool(data) and not is_text


def _count_numbers(fields: Sequence[bytes]) -> int:
    """Return the number of numeric fields at the end of a line. The first is the word.

    Infinity and NaN count, so that an invalid number is found later and named.
    """
    count = 0
    while count < len(fields) - 1 and _parses(fields[-1 - count]):
        count += 1
    return count


def _is_number(field: bytes) -> bool:
    return _parses(field) and abs(float(field)) <= MAX_FLOAT32


def _parses(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return b"_" not in field
