"""Characters to ids and back, without a Python loop over them.

Text is gone through in blocks that stay in the processor's cache, which makes it twice as fast (benchmarks/large.py).
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from charlm.text.ids import UNKNOWN_ID, Ids, smallest_dtype

UNKNOWN_CHAR = "\N{REPLACEMENT CHARACTER}"
"""What an unknown character decodes to."""

BLOCK_CHARS = 1 << 16
"""Characters looked up at a time."""


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """The Unicode code points of a text, lone surrogates included, shape (len(text),)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def distinct_characters(pieces: Iterable[str]) -> str:
    """All characters of a text that comes in pieces, each once, in the order of their code points."""
    seen = np.zeros(sys.maxunicode + 1, dtype=np.bool_)
    known = b""  # in ASCII: what is known already is taken out first, at a gigabyte a second
    for _, block in (each for piece in pieces for each in _blocks(piece)):
        if not block.isascii():
            points = code_points(block)
            if not seen.take(points, mode="clip").all():  # to look is twice as fast as to mark
                seen[points] = True
        elif new := block.encode().translate(None, known):
            seen[np.frombuffer(new, dtype=np.uint8)] = True
            known = bytes(np.flatnonzero(seen[:128]).tolist())
    return np.flatnonzero(seen).astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


class CharTokenizer:
    """One token a Unicode character.

    Encoding is one look-up in a table indexed by code point.

    Args:
        chars: The distinct characters of the vocabulary; character i has the id i + 1.

    Raises:
        ValueError: If a character comes twice or is longer than one character.
    """

    kind = "char"
    cut_anywhere = True

    def __init__(self, chars: Sequence[str]) -> None:
        if len(set(chars)) != len(chars) or any(len(char) != 1 for char in chars):
            raise ValueError("a character vocabulary holds distinct single characters")
        self.tokens: Sequence[str] = (UNKNOWN_CHAR, *chars)
        points = code_points("".join(chars))
        self._points = np.concatenate([code_points(UNKNOWN_CHAR), points])
        # One entry past the greatest code point stays unknown: look-ups beyond the table are clipped to it.
        self._table = np.full(int(points.max(initial=0)) + 2, UNKNOWN_ID, dtype=smallest_dtype(self.vocab_size))
        self._table[points] = np.arange(1, self.vocab_size)
        self._ascii = bytes(self._table[:128]).ljust(256, b"\0") if self._table.itemsize == 1 else None

    @classmethod
    def from_text(cls, text: str) -> "CharTokenizer":
        """Make the vocabulary of all characters of a text, in the order of their code points."""
        return cls.from_pieces([text])

    @classmethod
    def from_pieces(cls, pieces: Iterable[str]) -> "CharTokenizer":
        """Make the vocabulary of all characters of a text that comes in pieces, in the order of their code points."""
        return cls(distinct_characters(pieces))

    @property
    def vocab_size(self) -> int:
        """Number of token types, the unknown token among them."""
        return len(self.tokens)

    def encode(self, text: str) -> Ids:
        """Give the id of each character, shape (len(text),)."""
        if self._ascii is not None and text.isascii():
            return np.frombuffer(bytearray(text, "ascii").translate(self._ascii), dtype=np.uint8)
        ids: Ids = np.empty_like(self._table, shape=len(text))
        for begin, block in _blocks(text):
            self._table.take(code_points(block), mode="clip", out=ids[begin : begin + len(block)])
        return ids

    def decode(self, ids: npt.ArrayLike) -> str:
        """Put characters together; unknown ones become U+FFFD."""
        return self._points[np.asarray(ids, dtype=np.intp)].tobytes().decode("utf-32-le", "surrogatepass")

    def unknown_in(self, text: str) -> list[str]:
        """The distinct characters of a text that the vocabulary lacks, in their order."""
        places = np.flatnonzero(self.encode(text) == UNKNOWN_ID)
        return list(dict.fromkeys(text[place] for place in places))

    def to_dict(self) -> dict[str, Any]:
        """All that `tokenizer_from_dict` needs, ready for JSON."""
        return {"kind": self.kind, "chars": "".join(self.tokens[1:])}


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    """Cut a text into blocks, each with its place."""
    for begin in range(0, len(text), BLOCK_CHARS):
        yield begin, text[begin : begin + BLOCK_CHARS]
