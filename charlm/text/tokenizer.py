"""Text to token ids and back.

A tokenizer is a list of tokens, whose places are the ids, and a rule that cuts text into them. Id 0 is the
unknown token: everything that the vocabulary lacks. `decode(encode(text)) == text` for every text whose
tokens are known.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from charlm.config import TokenizerConfig
from charlm.errors import CheckpointError
from charlm.text.characters import UNKNOWN_CHAR, CharTokenizer
from charlm.text.ids import UNKNOWN_ID, Ids, smallest_dtype
from charlm.text.words import (
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

__all__ = [
    "UNKNOWN_ID",
    "CharTokenizer",
    "Ids",
    "Tokenizer",
    "WhitespaceTokenizer",
    "WordTokenizer",
    "make_tokenizer",
    "tokenizer_from_dict",
]


class Tokenizer(Protocol):
    """What the rest of charlm knows of a tokenizer.

    Attributes:
        kind: char or word.
        cut_anywhere: Whether the ids of a text's parts are the text's ids wherever it is cut, not at line ends alone.
        tokens: The vocabulary; a token's place is its id.
    """

    kind: str
    cut_anywhere: bool
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
    cut_anywhere = False
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

    `charlm.text.words` tells how text is cut and where spaces are implied.

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
