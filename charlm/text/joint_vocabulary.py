"""Joint vocabulary of several tokenizers, for a mixture of their models."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from charlm.errors import ConfigError
from charlm.text.ids import smallest_dtype
from charlm.text.tokenizer import UNKNOWN_ID, Ids, Tokenizer, tokenizer_from_dict


def join_vocabularies(tokenizers: Sequence[Tokenizer]) -> Tokenizer:
    """Return a tokenizer with the tokens of all tokenizers: those of the first one, then the others.

    Word tokenizers that keep whitespace must have equal vocabularies, because their vocabulary decides where a token
    for a space is needed.

    Raises:
        ConfigError: If the tokenizers split text by different rules.

    Example:
        >>> from charlm.text.tokenizer import CharTokenizer
        >>> join_vocabularies([CharTokenizer("ab"), CharTokenizer("bc")]).tokens[1:]
        ('a', 'b', 'c')
    """
    first, *others = [tokenizer.to_dict() for tokenizer in tokenizers]
    for other in others:
        _check_rules(first, other)
        if first.get("split") == "words" and _spacing(first) != _spacing(other):
            raise ConfigError(
                "mix: these word models have different vocabularies, so that they split text into different tokens; "
                "train one with the vocabulary of the other",
                fields=["mix"],
            )
    if first.get("split") == "words":
        return tokenizers[0]
    key = "chars" if first["kind"] == "char" else "tokens"
    union = dict.fromkeys(token for data in (first, *others) for token in data[key])
    return tokenizer_from_dict({**first, key: "".join(union) if key == "chars" else list(union)})


def translate_ids(tokenizer: Tokenizer, other: Tokenizer) -> Ids:
    """Return for each token of a tokenizer its id in another one, (V,); `UNKNOWN_ID` if it has none.

    Example:
        >>> from charlm.text.tokenizer import CharTokenizer
        >>> translate_ids(CharTokenizer("abc"), CharTokenizer("ca")).tolist()
        [0, 2, 0, 1]
    """
    ids = {token: token_id for token_id, token in enumerate(other.tokens)}
    translated = np.array(
        [ids.get(token, UNKNOWN_ID) for token in tokenizer.tokens], dtype=smallest_dtype(other.vocab_size)
    )
    translated[UNKNOWN_ID] = UNKNOWN_ID
    return translated


def _check_rules(first: dict[str, Any], other: dict[str, Any]) -> None:
    """Check that two tokenizers have the same settings, apart from their vocabularies."""
    for key in ("kind", "split", "lowercase", "normalize", "word_rule"):
        one, two = first.get(key), other.get(key)
        if one != two:
            raise ConfigError(
                "mix: the models must split text into the same tokens, but one has the tokenizer setting "
                f"{key} {one!r} and another has {two!r}; mix models that split text alike",
                fields=["mix"],
            )


def _spacing(data: dict[str, Any]) -> dict[str, tuple[bool, bool]]:
    """Return for each token whether no space is implied before it and after it."""
    before, after = set(data["no_space_before"]), set(data["no_space_after"])
    return {token: (index in before, index in after) for index, token in enumerate(data["tokens"])}
