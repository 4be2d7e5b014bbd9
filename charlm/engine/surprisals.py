"""Surprisals of the parts of a text: its tokens, characters or words."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from charlm.engine.predictor import Predictor
from charlm.engine.scorer import ModelStreamScorer
from charlm.engine.word_scores import word_scores
from charlm.errors import ConfigError
from charlm.text.line_ends import fold_line_ends
from charlm.text.spans import token_texts
from charlm.text.tokenizer import UNKNOWN_ID

Unit = Literal["token", "character", "word"]


class Surprisal(NamedTuple):
    """Surprisal of a part of a text.

    Attributes:
        text: The token, character or word.
        bits: Its surprisal, -log2 of its probability given all text before it.
        unknown: Whether it contains a token that the model does not know.

    Example:
        >>> import charlm
        >>> first, *_ = charlm.load("shakespeare").surprisals("To be")
        >>> first.text, round(first.bits, 1), first.unknown
        ('T', 3.3, False)
    """

    text: str
    bits: float
    unknown: bool


class Surprisals(list[Surprisal]):
    """Surprisals of the parts of a text, in their order, which are also available as arrays.

    Attributes:
        bits: Surprisal of each part in bits, (N,), float64.
        start: Position in the text at which each part begins, (N,), integers. For words, this is the position of the
            whitespace before the word.
        unknown: Whether each part contains a token that the model does not know, (N,), bool.
        entropy: Entropy of the prediction of each token in bits, (N,), float64: the surprisal that the model expected.
            For parts that are not tokens, NaN.

    Example:
        >>> import charlm
        >>> tokens = charlm.load("shakespeare").surprisals("To be")
        >>> tokens.bits.round().tolist(), tokens.entropy.round().tolist(), tokens.start.tolist()
        ([3.0, 3.0, 0.0, 4.0, 0.0], [5.0, 2.0, 1.0, 4.0, 2.0], [0, 1, 2, 3, 4])
    """

    def __init__(self, parts: Iterable[Surprisal], entropy: npt.ArrayLike | None = None) -> None:
        super().__init__(parts)
        self.bits = np.array([part.bits for part in self], dtype=np.float64)
        self.start = np.cumsum([0, *(len(part.text) for part in self[:-1])])[: len(self)]
        self.unknown = np.array([part.unknown for part in self], dtype=np.bool_)
        self.entropy = np.full(len(self), np.nan) if entropy is None else np.asarray(entropy, dtype=np.float64)


def surprisals_of(predictor: Predictor, text: str, unit: Unit) -> Surprisals:
    """Return the surprisals of the parts of a text by a model; see `charlm.Model.surprisals`.

    Raises:
        ConfigError: If the unit does not exist.
    """
    if not text:
        return Surprisals([])
    tokenizer = predictor.tokenizer
    scores = ModelStreamScorer(predictor, with_entropy=unit == "token").feed(fold_line_ends(text))
    text = scores.text
    if unit == "word":
        return Surprisals(
            Surprisal(text[word.begin : word.end], word.nats / math.log(2), word.num_unknown > 0)
            for word in word_scores(tokenizer, scores)
        )
    texts = token_texts(tokenizer, text, scores.ids.tolist())
    bits = (scores.nats.astype(np.float64) / math.log(2)).tolist()
    tokens = [Surprisal(*token) for token in zip(texts, bits, (scores.ids == UNKNOWN_ID).tolist(), strict=True)]
    match unit:
        case "token":
            assert scores.entropy_nats is not None, "computed for this unit"
            return Surprisals(tokens, scores.entropy_nats / math.log(2))
        case "character":
            return Surprisals(_characters(tokens))
    raise ConfigError(f"unit {unit}: must be one of token, character, word", fields=["unit"])


def _characters(tokens: Sequence[Surprisal]) -> Iterator[Surprisal]:
    """Divide the surprisal of each token evenly among its characters; that of an empty token goes to the next one."""
    carried = 0.0
    for token in tokens:
        carried += token.bits
        for char in token.text:
            yield Surprisal(char, carried / len(token.text), token.unknown)
        if token.text:
            carried = 0.0
