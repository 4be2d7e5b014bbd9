"""Text to token ids and back.

A tokenizer is a list of tokens, whose places are the ids, and a rule that cuts text into them. Id 0 is the
unknown token: everything that the vocabulary lacks. `decode(encode(text)) == text` for every text whose
tokens are known.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from charlm.errors import CheckpointError

UNKNOWN_ID = 0
"""The id of the unknown token, in every vocabulary."""

UNKNOWN_CHAR = "\N{REPLACEMENT CHARACTER}"
"""What an unknown character decodes to."""

COUNTED_BLOCKS, COUNTED_BLOCK = 64, 2**20
"""Tokens that are counted at most, in so many blocks: enough to know how frequent each is."""

Ids = npt.NDArray[np.unsignedinteger[Any]]
"""Token ids, in the smallest unsigned type that holds the vocabulary."""


class Tokenizer(Protocol):
    """What the rest of charlm knows of a tokenizer."""

    kind: str
    tokens: Sequence[str]

    @property
    def vocab_size(self) -> int:
        """Number of token types, the unknown token among them."""
        ...

    def encode(self, text: str) -> Ids:
        """Cut text into tokens and give their ids, shape (number of tokens,)."""
        ...

    def decode(self, ids: npt.ArrayLike) -> str:
        """Put the text of token ids together again."""
        ...

    def unknown_in(self, text: str) -> list[str]:
        """The distinct tokens of a text that the vocabulary lacks, in their order."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """All that `tokenizer_from_dict` needs, ready for JSON."""
        ...


def smallest_dtype(vocab_size: int) -> type[np.unsignedinteger[Any]]:
    """The smallest unsigned integer type for ids below `vocab_size`."""
    return np.uint8 if vocab_size <= 2**8 else np.uint16 if vocab_size <= 2**16 else np.uint32


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """The Unicode code points of a text, lone surrogates included, shape (len(text),)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def count_ids(ids: Ids, vocab_size: int) -> npt.NDArray[np.int64]:
    """How often each token comes in a text, (vocab_size,); of a long text, in a sample from all over it."""
    stride = -(-len(ids) // (COUNTED_BLOCKS * COUNTED_BLOCK))
    counts = np.zeros(vocab_size, dtype=np.int64)
    for begin in range(0, len(ids), COUNTED_BLOCK * stride):
        counts += np.bincount(ids[begin : begin + COUNTED_BLOCK], minlength=vocab_size)
    return counts


class CharTokenizer:
    """One token a Unicode character.

    Encoding is one look-up in a table indexed by code point, without a Python loop.

    Args:
        chars: The distinct characters of the vocabulary; character i has the id i + 1.

    Raises:
        ValueError: If a character comes twice or is longer than one character.
    """

    kind = "char"

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
        seen = np.zeros(sys.maxunicode + 1, dtype=np.bool_)
        known = b""  # in ASCII: what is known already is taken out first, at a gigabyte a second
        for piece in pieces:
            rest = piece.encode("utf-8", "surrogatepass").translate(None, known).decode("utf-8", "surrogatepass")
            seen[code_points(rest)] = True
            known = bytes(np.flatnonzero(seen[:128]).tolist())
        return cls(np.flatnonzero(seen).astype("<u4").tobytes().decode("utf-32-le", "surrogatepass"))

    @property
    def vocab_size(self) -> int:
        """Number of token types, the unknown token among them."""
        return len(self.tokens)

    def encode(self, text: str) -> Ids:
        """Give the id of each character, shape (len(text),)."""
        if self._ascii is not None and text.isascii():
            return np.frombuffer(bytearray(text, "ascii").translate(self._ascii), dtype=np.uint8)
        points = code_points(text)
        if points.max(initial=0) >= len(self._table):
            points = np.minimum(points, len(self._table) - 1)
        return self._table[points]

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


def tokenizer_from_dict(data: Mapping[str, Any]) -> Tokenizer:
    """Rebuild a tokenizer from `to_dict`'s answer.

    Raises:
        CheckpointError: If it is of an unknown kind or its vocabulary is damaged.
    """
    match data:
        case {"kind": "char", "chars": str(chars)} if len(set(chars)) == len(chars):
            return CharTokenizer(chars)
    raise CheckpointError("the tokenizer in the model's header is damaged, or from a newer charlm")
