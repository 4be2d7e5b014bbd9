"""Tokenizers: text to token ids and back.

A tokenizer is a list of tokens, whose indices are the ids, and a rule that splits text into tokens. Id 0 is the unknown
token, which replaces every token that is not in the vocabulary. `decode(encode(text)) == folding.fold(text)` for every
text whose tokens are in the vocabulary; without folding, that is the text itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy.typing as npt

from charlm.config import TokenizerConfig
from charlm.errors import CheckpointError
from charlm.text.characters import CharTokenizer
from charlm.text.folding import NORMAL_FORMS, Folding
from charlm.text.ids import UNKNOWN_ID, Ids
from charlm.text.word_rules import NEWEST_WORD_RULE, WORD_RULES
from charlm.text.word_tokenizers import SpacedTokenizer, WhitespaceTokenizer, WordTokenizer

__all__ = [
    "UNKNOWN_ID",
    "CharTokenizer",
    "Ids",
    "SpacedTokenizer",
    "Tokenizer",
    "WhitespaceTokenizer",
    "WordTokenizer",
    "make_tokenizer",
    "tokenizer_from_dict",
]


class Tokenizer(Protocol):
    """Interface of all tokenizers.

    Attributes:
        kind: `char` or `word`.
        cut_anywhere: Whether a text may be cut anywhere and its parts encoded separately. If False, it may be cut only
            after newlines.
        tokens: The vocabulary. The index of a token is its id.
        folding: Changes of a text before it is encoded.
    """

    kind: str
    folding: Folding
    cut_anywhere: bool
    tokens: Sequence[str]

    @property
    def vocab_size(self) -> int:
        """Number of tokens in the vocabulary, including the unknown token."""
        ...

    def encode(self, text: str) -> Ids:
        """Return the ids of the tokens of a text, (number of tokens,), in the smallest unsigned integer type."""
        ...

    def encode_prompt(self, text: str) -> tuple[Ids, bool]:
        """Return the ids of a text that will be continued, and whether they leave out its final space.

        A space that the next word implies is not a token. With a token for it, the next token would not be a word.
        """
        ...

    def decode(self, ids: npt.ArrayLike) -> str:
        """Return the text of token ids, (number of tokens,)."""
        ...

    def unknown_in(self, text: str) -> list[str]:
        """Return the distinct tokens of a text that are not in the vocabulary, in the order of their occurrence."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return what `tokenizer_from_dict` needs, in types that JSON supports."""
        ...


def make_tokenizer(config: TokenizerConfig, texts: Iterable[str], base: Tokenizer | None = None) -> Tokenizer:
    """Return a tokenizer with the vocabulary of a text.

    Args:
        config: Kind of tokenizer, and limits of its vocabulary.
        texts: The text in pieces, preferably cut after newlines.
        base: Tokenizer that splits text by the same rules as the new one; None for the newest rules.

    Example:
        >>> make_tokenizer(TokenizerConfig(), ["hihello"]).tokens[1:]
        ('e', 'h', 'i', 'l', 'o')
    """
    limits: dict[str, Any] = {
        "max_vocab": config.max_vocab,
        "min_count": config.min_count or 1,
        "lowercase": config.lowercase,
        "normalize": config.normalize,
    }
    if config.tokenizer == "char":
        return CharTokenizer.from_pieces(texts, **limits)
    if config.split == "whitespace":
        return WhitespaceTokenizer.from_text(texts, **limits)
    word_rule = base.rule.number if isinstance(base, WordTokenizer) else NEWEST_WORD_RULE
    return WordTokenizer.from_text(texts, word_rule=word_rule, **limits)


def tokenizer_from_dict(data: Mapping[str, Any]) -> Tokenizer:
    """Return a tokenizer from the result of its `to_dict`.

    Raises:
        CheckpointError: If the kind is unknown or the vocabulary is invalid.
    """
    try:
        match data:
            case {"kind": "char", "chars": str(chars)}:
                return CharTokenizer(chars, **_folding(data))
            case {"kind": "word", "split": "whitespace", "tokens": [*tokens], "lowercase": bool()}:
                return WhitespaceTokenizer(_strings(tokens), **_folding(data))
            case {
                "kind": "word",
                "split": "words",
                "tokens": [*tokens],
                "no_space_before": [*before],
                "no_space_after": [*after],
                "lowercase": bool(),
            }:
                return WordTokenizer(
                    _strings(tokens),
                    _indices(before),
                    _indices(after),
                    **_folding(data),
                    word_rule=_word_rule(data.get("word_rule", 1)),
                )
    except ValueError as error:
        raise CheckpointError(f"invalid tokenizer: {error}") from None
    raise CheckpointError("invalid tokenizer; it may be from a newer version of charlm")


def _strings(values: Sequence[Any]) -> list[str]:
    if not all(isinstance(value, str) for value in values):
        raise ValueError("a token is not a string")
    return list(values)


def _indices(values: Sequence[Any]) -> list[int]:
    if not all(type(value) is int for value in values):
        raise ValueError("a token id is not an integer")
    return list(values)


def _folding(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments for the folding of text. Values are checked, because they are from a file."""
    lowercase, normalize = data.get("lowercase", False), data.get("normalize", "none")
    if not isinstance(lowercase, bool):
        raise ValueError("lowercase is not a boolean")
    if normalize not in NORMAL_FORMS:
        raise ValueError("an unknown normal form")
    return {"lowercase": lowercase, "normalize": normalize}


def _word_rule(number: object) -> int:
    if type(number) is not int or number not in WORD_RULES:
        raise ValueError("an unknown rule for words; a newer charlm may know it")
    return number
