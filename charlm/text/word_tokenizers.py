"""Tokenizers whose tokens are words: one that keeps whitespace, and one for text that is already tokenized."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from charlm.text.characters import UNKNOWN_CHAR
from charlm.text.folding import Folding
from charlm.text.ids import UNKNOWN_ID, Ids, smallest_dtype
from charlm.text.word_rules import NEWEST_WORD_RULE, WORD_RULES
from charlm.text.words import (
    JOIN,
    LINE_END_WORD,
    NEWLINE,
    SPACE,
    UNKNOWN_WORD,
    ChunkCache,
    blocks,
    count_split_words,
    count_words,
    cut_at_spaces,
    most_frequent,
    spaces_between,
)

MAX_RARE_WORDS = 30_000
"""Maximum number of words that a new tokenizer remembers although they are not in its vocabulary."""


class SpacedTokenizer:
    """Base class of the word tokenizers: vocabulary, and decoding with implied spaces.

    Two tokens are separated by one space if the first takes a space after it and the second takes a space before it,
    and by nothing otherwise. This depends only on the two tokens. Therefore, decoding more tokens only appends text.

    Args:
        tokens: The vocabulary, beginning with the unknown token.
        no_space_before: Ids of tokens before which no space is implied.
        no_space_after: Ids of tokens after which no space is implied.
        texts: Text of those tokens that do not decode to themselves.
        lowercase: Whether text is converted to lower case before it is split.
        normalize: Unicode normal form that text is converted to before, one of `charlm.text.folding.NORMAL_FORMS`.

    Attributes:
        rare_words: Words of a text that are not in the vocabulary that was built from it, and the number of times that
            each occurs, up to `MAX_RARE_WORDS` words. It is not part of the model file.

    Raises:
        ValueError: If a token occurs twice, if the first is not the unknown token, or if an id is out of range.
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
        normalize: str,
    ) -> None:
        if not tokens or tokens[0] != UNKNOWN_WORD or len(set(tokens)) != len(tokens) or "" in tokens:
            raise ValueError(f"the tokens of a word vocabulary must be distinct, and the first must be {UNKNOWN_WORD}")
        if any(not 0 < index < len(tokens) for index in (*no_space_before, *no_space_after)):
            raise ValueError("a token id is out of range")
        self.tokens: Sequence[str] = tuple(tokens)
        self.folding = Folding(lowercase, normalize)
        self.rare_words: Mapping[str, int] = {}
        self._index = {token: index for index, token in enumerate(tokens)}
        self._space_before = np.ones(len(tokens), dtype=np.bool_)
        self._space_before[list(no_space_before)] = False
        self._space_after = np.ones(len(tokens), dtype=np.bool_)
        self._space_after[list(no_space_after)] = False
        decoded = [texts.get(token, token) for token in tokens]
        self._decoded = np.array(decoded, dtype=object)
        self._decoded_after_space = np.array([" " + text for text in decoded], dtype=object)

    @property
    def vocab_size(self) -> int:
        """Number of tokens in the vocabulary, including the unknown token."""
        return len(self.tokens)

    def decode(self, ids: npt.ArrayLike) -> str:
        """Return the text of token ids, (number of tokens,). The unknown token becomes <unk>."""
        indices = np.asarray(ids, dtype=np.intp).reshape(-1)
        if not len(indices):
            return ""
        implied = self._space_after[indices[:-1]] & self._space_before[indices[1:]]
        texts = self._decoded[indices]
        texts[1:][implied] = self._decoded_after_space[indices[1:][implied]]
        return "".join(texts.tolist())

    def encode(self, text: str) -> Ids:
        """Return the ids of the tokens of a text, (number of tokens,), in the smallest unsigned integer type."""
        raise NotImplementedError

    def encode_prompt(self, text: str) -> tuple[Ids, bool]:
        """Return the ids of a text that will be continued, and whether they leave out its final space.

        The space is left out if the next word implies it. After other tokens, such as a newline, it is a token.
        """
        if text.endswith(SPACE):
            ids = self.encode(text.removesuffix(SPACE))
            if len(ids) and self._space_after[ids[-1]]:
                return ids, True
        return self.encode(text), False

    def to_dict(self) -> dict[str, Any]:
        """Return what `tokenizer_from_dict` needs, in types that JSON supports."""
        return {
            "kind": self.kind,
            "split": self.split,
            "lowercase": self.folding.lowercase,
            "tokens": list(self.tokens),
            "no_space_before": np.flatnonzero(~self._space_before).tolist(),
            "no_space_after": np.flatnonzero(~self._space_after).tolist(),
            **self.folding.to_dict(),
        }

    def left_out(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Return the words of a text that are not in the vocabulary, and their counts, up to `MAX_RARE_WORDS` words.

        The unknown token itself is included if the text contains it.

        Args:
            counts: Number of occurrences of each word of the text.
        """
        words = itertools.islice((word for word in counts if word not in self._index), MAX_RARE_WORDS)
        itself = {UNKNOWN_WORD} & counts.keys()
        return {word: counts[word] for word in (*itself, *words)}


class WordTokenizer(SpacedTokenizer):
    """Tokenizer whose tokens are words, numbers, punctuation and newlines.

    Every text whose words are in the vocabulary is decoded exactly. `charlm.text.words` explains how.

    Args:
        tokens: The vocabulary, beginning with the unknown token. It contains `JOIN`, the space and the newline.
        no_space_before: Ids of tokens before which no space is implied.
        no_space_after: Ids of tokens after which no space is implied.
        lowercase: Whether text is converted to lower case before it is split.
        normalize: Unicode normal form that text is converted to before, one of `charlm.text.folding.NORMAL_FORMS`.
        word_rule: Number of the rule for splitting text into words, a key of `charlm.text.word_rules.WORD_RULES`.

    Attributes:
        rule: The rule for splitting text into words.

    Raises:
        ValueError: If the vocabulary is invalid.

    Example:
        >>> tokenizer = WordTokenizer.from_text(["To be, or not to be.\\n"])
        >>> tokenizer.decode(tokenizer.encode("not to be, or be"))
        'not to be, or be'
    """

    split = "words"

    def __init__(
        self,
        tokens: Sequence[str],
        no_space_before: Sequence[int],
        no_space_after: Sequence[int],
        *,
        lowercase: bool = False,
        normalize: str = "none",
        word_rule: int = NEWEST_WORD_RULE,
    ) -> None:
        super().__init__(tokens, no_space_before, no_space_after, {JOIN: ""}, lowercase=lowercase, normalize=normalize)
        self.rule = WORD_RULES[word_rule]
        if not {JOIN, SPACE, NEWLINE} <= self._index.keys():
            raise ValueError("a word vocabulary must contain the space, the newline and the join token")
        self._chunks = ChunkCache(self._ids_of_chunk)

    @classmethod
    def from_text(
        cls,
        texts: Iterable[str],
        *,
        max_vocab: int | None = None,
        min_count: int = 1,
        lowercase: bool = False,
        normalize: str = "none",
        word_rule: int = NEWEST_WORD_RULE,
    ) -> "WordTokenizer":
        """Return a tokenizer with the vocabulary of a text.

        Args:
            texts: The text in pieces, preferably cut after newlines.
            max_vocab: Maximum vocabulary size, including the unknown token; None for no limit.
            min_count: Minimum number of occurrences of a word in the vocabulary.
            lowercase: Whether text is converted to lower case before it is split.
            normalize: Unicode normal form that text is converted to before.
            word_rule: Number of the rule for splitting text into words.
        """
        counts = count_words(map(Folding(lowercase, normalize).fold, texts), WORD_RULES[word_rule])
        tokens = most_frequent(counts.tokens, kept=(JOIN, SPACE, NEWLINE), max_size=max_vocab, min_count=min_count)
        before = [index for index, token in enumerate(tokens) if token in counts.no_space_before]
        after = [index for index, token in enumerate(tokens) if token in counts.no_space_after]
        tokenizer = cls(tokens, before, after, lowercase=lowercase, normalize=normalize, word_rule=word_rule)
        tokenizer.rare_words = tokenizer.left_out(counts.tokens)
        return tokenizer

    def to_dict(self) -> dict[str, Any]:
        """Return what `tokenizer_from_dict` needs, in types that JSON supports."""
        return super().to_dict() | ({"word_rule": self.rule.number} if self.rule.number > 1 else {})

    def encode(self, text: str) -> Ids:
        """Return the ids of the tokens of a text, (number of tokens,), in the smallest unsigned integer type."""
        parts = [self._encode_block(block) for block in blocks(self.folding.fold(text))]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def unknown_in(self, text: str) -> list[str]:
        """Return the distinct words of a text that are not in the vocabulary, in the order of their occurrence."""
        chunks = dict.fromkeys(self.folding.fold(text).replace(NEWLINE, SPACE).split(SPACE))
        pieces = dict.fromkeys(piece for chunk in chunks for piece in self.rule.cut(chunk))
        return [piece for piece in pieces if self._ids_of(piece) == [UNKNOWN_ID]]

    def _encode_block(self, text: str) -> Ids:
        chunks = self._chunks
        chunks.clear_if_full()
        parts = cut_at_spaces(text)
        numbers = np.fromiter(map(chunks.__getitem__, parts), dtype=np.int32, count=len(parts))
        indices, spaces = spaces_between(numbers == chunks[""], numbers == chunks[NEWLINE])
        numbers = numbers[indices]
        firsts, lasts = chunks.first_and_last_ids(numbers)
        # A single space needs no token where it is implied. No space is implied at the ends of the text.
        implied = spaces[1:-1] == 1
        implied &= self._space_after[lasts[:-1]]
        implied &= self._space_before[firsts[1:]]
        spaces[1:-1][implied] = 0
        gaps = np.flatnonzero(spaces)
        runs = np.array([chunks[SPACE * count] for count in spaces[gaps].tolist()], dtype=np.int32)
        ids: Ids = chunks.all_ids(np.insert(numbers, gaps, runs)).astype(smallest_dtype(self.vocab_size))
        return ids

    def _ids_of_chunk(self, chunk: str) -> list[int]:
        """Return the ids of a chunk or of a run of spaces, with `JOIN` where a space would be implied."""
        if not chunk.strip(SPACE):
            return self._ids_of(chunk) if chunk else []
        ids: list[int] = []
        for piece in self.rule.cut(chunk):
            for token_id in self._ids_of(piece):
                if ids and self._space_after[ids[-1]] and self._space_before[token_id]:
                    ids.append(self._index[JOIN])
                ids.append(token_id)
        return ids

    def _ids_of(self, piece: str) -> list[int]:
        """Return the id of a token. An unknown run of one mark, such as "!!!", becomes the ids of the single marks."""
        if (token_id := self._index.get(piece)) is not None:
            return [token_id]
        if not self.rule.is_word(piece) and piece == piece[0] * len(piece) and piece[0] in self._index:
            return [self._index[piece[0]]] * len(piece)
        return [UNKNOWN_ID]


class WhitespaceTokenizer(SpacedTokenizer):
    """Tokenizer that splits at whitespace, for text that is already tokenized.

    Each newline is a token. Other whitespace is not preserved. A text is decoded exactly if its words are separated by
    single spaces and its lines have no spaces at either end. `<unk>` in a text is the unknown token.

    Args:
        tokens: The vocabulary, beginning with the unknown token. It contains `LINE_END_WORD`.
        lowercase: Whether text is converted to lower case before it is split.
        normalize: Unicode normal form that text is converted to before, one of `charlm.text.folding.NORMAL_FORMS`.

    Raises:
        ValueError: If the vocabulary is invalid.
    """

    split = "whitespace"

    def __init__(
        self,
        tokens: Sequence[str],
        *,
        lowercase: bool = False,
        normalize: str = "none",
    ) -> None:
        if LINE_END_WORD not in tokens:
            raise ValueError(f"a vocabulary for splitting at whitespace must contain {LINE_END_WORD}")
        line_end = tokens.index(LINE_END_WORD)
        super().__init__(
            tokens, [line_end], [line_end], {LINE_END_WORD: NEWLINE}, lowercase=lowercase, normalize=normalize
        )
        # Newlines are looked up by a character that `_split_words` removes from texts, so that <eos> in a text is an
        # unknown word.
        self._lookup = {token: index for token, index in self._index.items() if token != LINE_END_WORD}
        self._lookup[_NEWLINE_MARK] = line_end

    @classmethod
    def from_text(
        cls, texts: Iterable[str], *, max_vocab: int | None = None, min_count: int = 1, **folding: Any
    ) -> "WhitespaceTokenizer":
        """Return a tokenizer with the vocabulary of a text. The arguments are those of `WordTokenizer.from_text`."""
        counts = count_split_words(map(Folding(**folding).fold, texts))
        tokens = most_frequent(counts, kept=(LINE_END_WORD,), max_size=max_vocab, min_count=min_count)
        tokenizer = cls(tokens, **folding)
        tokenizer.rare_words = tokenizer.left_out(counts)
        return tokenizer

    def encode(self, text: str) -> Ids:
        """Return the ids of words and newlines, (number of tokens,), in the smallest unsigned integer type."""
        dtype = smallest_dtype(self.vocab_size)
        get, unknown = self._lookup.get, itertools.repeat(UNKNOWN_ID)
        parts = [
            np.fromiter(map(get, words, unknown), dtype, len(words)) for words in map(self._split_words, blocks(text))
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def unknown_in(self, text: str) -> list[str]:
        """Return the distinct words of a text that are not in the vocabulary, in the order of their occurrence."""
        return [word for word in dict.fromkeys(self._split_words(text)) if word not in self._lookup]

    def _split_words(self, text: str) -> list[str]:
        return (
            self.folding.fold(text).replace(_NEWLINE_MARK, UNKNOWN_CHAR).replace(NEWLINE, f" {_NEWLINE_MARK} ").split()
        )


_NEWLINE_MARK = "\0"
"""Character that stands for a newline while a text is split. A text's own NUL characters are replaced before."""
