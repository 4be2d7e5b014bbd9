"""Character tokenizer: characters to ids and back, without a Python loop over them.

Text is processed in blocks that fit into the processor's cache. This doubles the speed (benchmarks/large.py).
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from charlm.text.folding import Folding
from charlm.text.ids import UNKNOWN_ID, Ids, smallest_dtype
from charlm.text.words import NEWLINE, most_frequent

UNKNOWN_CHAR = "\N{REPLACEMENT CHARACTER}"
"""Unknown token of character vocabularies. It decodes to itself."""

BLOCK_CHARS = 1 << 16
"""Number of characters processed at a time."""


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """Return the Unicode code points of a text, including lone surrogates, (len(text),)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def distinct_characters(pieces: Iterable[str]) -> str:
    """Return the distinct characters of a text that arrives in pieces, ordered by code point."""
    seen = np.zeros(sys.maxunicode + 1, dtype=np.bool_)
    known_ascii = b""  # bytes.translate removes these at about 1 GB per second
    for block in (block for piece in pieces for _, block in _blocks(piece)):
        if not block.isascii():
            points = code_points(block)
            if not seen.take(points, mode="clip").all():  # reading is twice as fast as writing
                seen[points] = True
        elif new := block.encode().translate(None, known_ascii):
            seen[np.frombuffer(new, dtype=np.uint8)] = True
            known_ascii = bytes(np.flatnonzero(seen[:128]).tolist())
    return np.flatnonzero(seen).astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


def count_characters(pieces: Iterable[str]) -> Counter[str]:
    """Count the characters of a text that arrives in pieces, ordered by code point."""
    counts = np.zeros(sys.maxunicode + 1, dtype=np.int64)
    for block in (block for piece in pieces for _, block in _blocks(piece)):
        found = np.bincount(code_points(block))
        counts[: len(found)] += found
    points = np.flatnonzero(counts)
    chars = points.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    return Counter(dict(zip(chars, counts[points].tolist(), strict=True)))


class CharTokenizer:
    """Tokenizer whose tokens are Unicode characters.

    Encoding looks up code points in a table.

    Args:
        chars: Distinct characters of the vocabulary. Character i has the id i + 1.
        lowercase: Whether text is converted to lower case before it is encoded.
        normalize: Unicode normal form that text is converted to before, one of `charlm.text.folding.NORMAL_FORMS`.

    Attributes:
        folding: Changes of a text before it is encoded.
        cut_anywhere: Whether a text may be cut anywhere and its parts encoded separately.

    Raises:
        ValueError: If a character occurs twice, or a string is not a single character.

    Example:
        >>> tokenizer = CharTokenizer.from_text("hihello")
        >>> tokenizer.encode("hello").tolist(), tokenizer.decode([2, 3])
        ([2, 1, 4, 4, 5], 'hi')
    """

    kind = "char"

    def __init__(self, chars: Sequence[str], *, lowercase: bool = False, normalize: str = "none") -> None:
        if len(set(chars)) != len(chars) or any(len(char) != 1 for char in chars):
            raise ValueError("the tokens of a character vocabulary must be distinct single characters")
        self.folding = Folding(lowercase, normalize)
        self.cut_anywhere = not self.folding.is_active
        self.tokens: Sequence[str] = (UNKNOWN_CHAR, *chars)
        points = code_points("".join(chars))
        self._points = np.concatenate([code_points(UNKNOWN_CHAR), points])
        # The entry after the largest code point stays unknown. Code points beyond the table are clipped to it.
        self._table = np.full(int(points.max(initial=0)) + 2, UNKNOWN_ID, dtype=smallest_dtype(self.vocab_size))
        self._table[points] = np.arange(1, self.vocab_size)
        # Table for bytes.translate, which is the fastest way for ASCII text.
        self._ascii = bytes(self._table[:128]).ljust(256, b"\0") if self._table.itemsize == 1 else None

    @classmethod
    def from_text(cls, text: str) -> "CharTokenizer":
        """Return a tokenizer whose vocabulary is all characters of a text, ordered by code point."""
        return cls.from_pieces([text])

    @classmethod
    def from_pieces(
        cls,
        pieces: Iterable[str],
        *,
        max_vocab: int | None = None,
        min_count: int = 1,
        lowercase: bool = False,
        normalize: str = "none",
    ) -> "CharTokenizer":
        """Return a tokenizer whose vocabulary is the characters of a text that arrives in pieces.

        They are ordered by code point, or by falling frequency if the vocabulary is limited. The newline is in the
        vocabulary if it is in the text, even if it is rare.

        Args:
            pieces: The text, in pieces. If it is folded, pieces should end after newlines.
            max_vocab: Maximum vocabulary size, including the unknown token; None for no limit.
            min_count: Minimum number of occurrences of a character in the vocabulary.
            lowercase: Whether text is converted to lower case before it is encoded.
            normalize: Unicode normal form that text is converted to before.
        """
        folded = map(Folding(lowercase, normalize).fold, pieces)
        if max_vocab is None and min_count <= 1:
            return cls(distinct_characters(folded), lowercase=lowercase, normalize=normalize)
        counts = count_characters(folded)
        kept = [NEWLINE] if NEWLINE in counts else []
        _, *chars = most_frequent(counts, kept=kept, max_size=max_vocab, min_count=min_count)
        return cls(chars, lowercase=lowercase, normalize=normalize)

    @property
    def vocab_size(self) -> int:
        """Number of tokens in the vocabulary, including the unknown token."""
        return len(self.tokens)

    def encode(self, text: str) -> Ids:
        """Return the id of each character of the folded text, (N,), in the smallest unsigned integer type."""
        text = self.folding.fold(text)
        if self._ascii is not None and text.isascii():
            return np.frombuffer(bytearray(text, "ascii").translate(self._ascii), dtype=np.uint8)
        ids: Ids = np.empty_like(self._table, shape=len(text))
        for begin, block in _blocks(text):
            self._table.take(code_points(block), mode="clip", out=ids[begin : begin + len(block)])
        return ids

    def encode_prompt(self, text: str) -> tuple[Ids, bool]:
        """Return the ids of a text that will be continued, and False, because they include its final space."""
        return self.encode(text), False

    def decode(self, ids: npt.ArrayLike) -> str:
        """Return the text of token ids, (number of tokens,). The unknown token becomes U+FFFD."""
        return self._points[np.asarray(ids, dtype=np.intp)].tobytes().decode("utf-32-le", "surrogatepass")

    def unknown_in(self, text: str) -> list[str]:
        """Return the distinct characters of a text that are not in the vocabulary, in the order of their occurrence."""
        positions = np.flatnonzero(self.encode(text) == UNKNOWN_ID)
        text = self.folding.fold(text)
        return list(dict.fromkeys(text[position] for position in positions))

    def to_dict(self) -> dict[str, Any]:
        """Return what `tokenizer_from_dict` needs, in types that JSON supports."""
        return {"kind": self.kind, "chars": "".join(self.tokens[1:]), **self.folding.to_dict()}


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    """Split a text into blocks of `BLOCK_CHARS` characters and yield the position and text of each."""
    for begin in range(0, len(text), BLOCK_CHARS):
        yield begin, text[begin : begin + BLOCK_CHARS]
