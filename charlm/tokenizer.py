"""Text to token ids and back.

A tokenizer is a list of tokens, whose places are the ids, and a rule that cuts text into them. Id 0 is the
unknown token: everything that the vocabulary lacks. `decode(encode(text)) == text` for every text whose
tokens are known.
"""

import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from charlm.config import TokenizerConfig
from charlm.errors import CheckpointError
from charlm.words import (
    JOIN,
    LINE_END_WORD,
    NEWLINE,
    SPACE,
    UNKNOWN_WORD,
    ChunkMemory,
    blocks,
    count_split_words,
    count_words,
    cut_at_spaces,
    cut_chunk,
    is_word,
    most_frequent,
    spaces_between,
)

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


class _Words:
    """What the word tokenizers share: the tokens, and the rule that says where a space is implied.

    Between two tokens stands one space if the first takes one after it and the second takes one before it, else
    nothing. The gap depends on its two neighbours alone, so that text grows at its end as tokens are added.

    Args:
        tokens: The vocabulary; the first is the unknown token.
        no_space_before: Ids of tokens that stand close to what comes before.
        no_space_after: Ids of tokens that stand close to what comes after.
        texts: What some tokens decode to, if not to themselves.
        lowercase: Whether text is turned to lower case first.

    Raises:
        ValueError: If a token comes twice, the first is not the unknown one, or an id is out of range.
    """

    kind = "word"
    split = ""

    def __init__(
        self,
        tokens: Sequence[str],
        no_space_before: Sequence[int],
        no_space_after: Sequence[int],
        texts: Mapping[str, str],
        *,
        lowercase: bool,
    ) -> None:
        if not tokens or tokens[0] != UNKNOWN_WORD or len(set(tokens)) != len(tokens) or "" in tokens:
            raise ValueError(f"a word vocabulary holds distinct tokens, the first of them {UNKNOWN_WORD}")
        if any(not 0 < index < len(tokens) for index in (*no_space_before, *no_space_after)):
            raise ValueError("a token that is not in the vocabulary")
        self.tokens: Sequence[str] = tuple(tokens)
        self.lowercase = lowercase
        self._index = {token: index for index, token in enumerate(tokens)}
        self._before = np.ones(len(tokens), dtype=np.bool_)
        self._before[list(no_space_before)] = False
        self._after = np.ones(len(tokens), dtype=np.bool_)
        self._after[list(no_space_after)] = False
        written = [texts.get(token, token) for token in tokens]
        self._written = np.array(written, dtype=object)
        self._spaced = np.array([" " + text for text in written], dtype=object)

    @property
    def vocab_size(self) -> int:
        """Number of token types, the unknown token among them."""
        return len(self.tokens)

    def decode(self, ids: npt.ArrayLike) -> str:
        """Put words together, spaces where they belong; the unknown token becomes <unk>."""
        places = np.asarray(ids, dtype=np.intp).reshape(-1)
        if not len(places):
            return ""
        gaps = self._after[places[:-1]] & self._before[places[1:]]
        texts = self._written[places]
        texts[1:][gaps] = self._spaced[places[1:][gaps]]
        return "".join(texts.tolist())

    def to_dict(self) -> dict[str, Any]:
        """All that `tokenizer_from_dict` needs, ready for JSON."""
        return {
            "kind": self.kind,
            "split": self.split,
            "lowercase": self.lowercase,
            "tokens": list(self.tokens),
            "no_space_before": np.flatnonzero(~self._before).tolist(),
            "no_space_after": np.flatnonzero(~self._after).tolist(),
        }

    def _fold(self, text: str) -> str:
        return text.lower() if self.lowercase else text


class WordTokenizer(_Words):
    """Words, numbers, punctuation, line ends: every text whose words are known comes back exactly.

    `charlm.words` tells how text is cut and where spaces are implied.

    Args:
        tokens: The vocabulary; the unknown token first, and `JOIN`, the space and the newline somewhere in it.
        no_space_before: Ids of tokens that stand close to what comes before.
        no_space_after: Ids of tokens that stand close to what comes after.
        lowercase: Whether text is turned to lower case first.

    Raises:
        ValueError: If the vocabulary is unsound.
    """

    split = "words"

    def __init__(
        self,
        tokens: Sequence[str],
        no_space_before: Sequence[int],
        no_space_after: Sequence[int],
        *,
        lowercase: bool = False,
    ) -> None:
        super().__init__(tokens, no_space_before, no_space_after, {JOIN: ""}, lowercase=lowercase)
        if not {JOIN, SPACE, NEWLINE} <= self._index.keys():
            raise ValueError("a word vocabulary holds the space, the newline and the join")
        self._entries = ChunkMemory(self._ids_of_chunk)

    @classmethod
    def from_text(
        cls, texts: Iterable[str], *, max_vocab: int | None = None, min_count: int = 1, lowercase: bool = False
    ) -> "WordTokenizer":
        """Make the vocabulary of a text.

        Args:
            texts: The text, in pieces that end at line ends where they can.
            max_vocab: The greatest size of the vocabulary.
            min_count: What comes less often is unknown.
            lowercase: Whether text is turned to lower case first.
        """
        counts = count_words(text.lower() if lowercase else text for text in texts)
        tokens = most_frequent(counts.tokens, kept=(JOIN, SPACE, NEWLINE), max_size=max_vocab, min_count=min_count)
        before = [index for index, token in enumerate(tokens) if token in counts.close_before]
        after = [index for index, token in enumerate(tokens) if token in counts.close_after]
        return cls(tokens, before, after, lowercase=lowercase)

    def encode(self, text: str) -> Ids:
        """Cut a text into words and give their ids, shape (number of tokens,)."""
        parts = [self._encode_block(block) for block in blocks(self._fold(text))]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def unknown_in(self, text: str) -> list[str]:
        """The distinct words of a text that the vocabulary lacks, in their order."""
        chunks = dict.fromkeys(self._fold(text).replace(NEWLINE, SPACE).split(SPACE))
        pieces = dict.fromkeys(piece for chunk in chunks for piece in cut_chunk(chunk))
        return [piece for piece in pieces if self._ids_of(piece) == [UNKNOWN_ID]]

    def _encode_block(self, text: str) -> Ids:
        parts = cut_at_spaces(text)
        entries = self._entries
        entries.forget_if_full()
        codes = np.fromiter(map(entries.__getitem__, parts), dtype=np.int32, count=len(parts))
        places, spaces = spaces_between(codes == entries[""], codes == entries[NEWLINE])
        codes = codes[places]
        firsts, lasts = entries.ends(codes)
        # A single space where one is implied needs no token; a text's ends imply none.
        implied = spaces[1:-1] == 1
        implied &= self._after[lasts[:-1]]
        implied &= self._before[firsts[1:]]
        spaces[1:-1][implied] = 0
        gaps = np.flatnonzero(spaces)
        runs = np.array([entries[SPACE * count] for count in spaces[gaps].tolist()], dtype=np.int32)
        ids: Ids = entries.gather(np.insert(codes, gaps, runs)).astype(smallest_dtype(self.vocab_size))
        return ids

    def _ids_of_chunk(self, chunk: str) -> list[int]:
        """The ids of a chunk, or of a run of spaces, joined where a space would be implied."""
        if not chunk.strip(SPACE):
            return self._ids_of(chunk) if chunk else []
        ids: list[int] = []
        for piece in cut_chunk(chunk):
            for index in self._ids_of(piece):
                if ids and self._after[ids[-1]] and self._before[index]:
                    ids.append(self._index[JOIN])
                ids.append(index)
        return ids

    def _ids_of(self, piece: str) -> list[int]:
        """The id of a token; a run of one mark that is unknown as a run falls apart into single marks."""
        if (index := self._index.get(piece)) is not None:
            return [index]
        if not is_word(piece) and piece == piece[0] * len(piece) and piece[0] in self._index:
            return [self._index[piece[0]]] * len(piece)
        return [UNKNOWN_ID]


class WhitespaceTokenizer(_Words):
    """What white space separates, and a token for each line end: for texts that are tokenised already.

    White space itself is not kept: a text comes back exactly if its words have single spaces between them and its
    lines no blanks at their ends. `<unk>` in a text is the unknown token.

    Args:
        tokens: The vocabulary; the unknown token first, and `LINE_END_WORD` somewhere in it.
        lowercase: Whether text is turned to lower case first.

    Raises:
        ValueError: If the vocabulary is unsound.
    """

    split = "whitespace"

    def __init__(self, tokens: Sequence[str], *, lowercase: bool = False) -> None:
        if LINE_END_WORD not in tokens:
            raise ValueError(f"a vocabulary split at white space holds {LINE_END_WORD}")
        end = [tokens.index(LINE_END_WORD)]
        super().__init__(tokens, end, end, {LINE_END_WORD: NEWLINE}, lowercase=lowercase)
        # A line end is looked up by a sign that no text holds, so that <eos> in a text is not taken for one.
        self._lookup = {token: index for token, index in self._index.items() if token != LINE_END_WORD}
        self._lookup[_LINE_END] = end[0]

    @classmethod
    def from_text(
        cls, texts: Iterable[str], *, max_vocab: int | None = None, min_count: int = 1, lowercase: bool = False
    ) -> "WhitespaceTokenizer":
        """Make the vocabulary of a text: see `WordTokenizer.from_text`."""
        counts = count_split_words(text.lower() if lowercase else text for text in texts)
        tokens = most_frequent(counts, kept=(LINE_END_WORD,), max_size=max_vocab, min_count=min_count)
        return cls(tokens, lowercase=lowercase)

    def encode(self, text: str) -> Ids:
        """Cut a text at white space and give the words' ids, shape (number of words and line ends,)."""
        dtype = smallest_dtype(self.vocab_size)
        get, unknown = self._lookup.get, itertools.repeat(UNKNOWN_ID)
        parts = [np.fromiter(map(get, words, unknown), dtype, len(words)) for words in map(self._cut, blocks(text))]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def unknown_in(self, text: str) -> list[str]:
        """The distinct words of a text that the vocabulary lacks, in their order."""
        return [word for word in dict.fromkeys(self._cut(text)) if word not in self._lookup]

    def _cut(self, text: str) -> list[str]:
        return self._fold(text).replace(_LINE_END, UNKNOWN_CHAR).replace(NEWLINE, f" {_LINE_END} ").split()


_LINE_END = "\0"


def make_tokenizer(config: TokenizerConfig, texts: Iterable[str]) -> Tokenizer:
    """Make a tokenizer with the vocabulary of a text.

    Args:
        config: Which kind, and what bounds its vocabulary.
        texts: The text, in pieces that end at line ends where they can.
    """
    if config.tokenizer == "char":
        return CharTokenizer.from_pieces(texts)
    words = WhitespaceTokenizer if config.split == "whitespace" else WordTokenizer
    return words.from_text(
        texts, max_vocab=config.max_vocab, min_count=config.min_count or 1, lowercase=config.lowercase
    )


def tokenizer_from_dict(data: Mapping[str, Any]) -> Tokenizer:
    """Rebuild a tokenizer from `to_dict`'s answer.

    Raises:
        CheckpointError: If it is of an unknown kind or its vocabulary is damaged.
    """
    try:
        match data:
            case {"kind": "char", "chars": str(chars)}:
                return CharTokenizer(chars)
            case {"kind": "word", "split": "whitespace", "tokens": [*tokens], "lowercase": bool(lowercase)}:
                return WhitespaceTokenizer(_strings(tokens), lowercase=lowercase)
            case {
                "kind": "word",
                "split": "words",
                "tokens": [*tokens],
                "no_space_before": [*before],
                "no_space_after": [*after],
                "lowercase": bool(lowercase),
            }:
                return WordTokenizer(_strings(tokens), _indices(before), _indices(after), lowercase=lowercase)
    except ValueError as error:
        raise CheckpointError(f"the tokenizer in the model's header is damaged: {error}") from None
    raise CheckpointError("the tokenizer in the model's header is damaged, or from a newer charlm")


def _strings(values: Sequence[Any]) -> list[str]:
    if not all(isinstance(value, str) for value in values):
        raise ValueError("a token that is no text")
    return list(values)


def _indices(values: Sequence[Any]) -> list[int]:
    if not all(type(value) is int for value in values):
        raise ValueError("a token's id that is no whole number")
    return list(values)
