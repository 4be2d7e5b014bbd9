"""How probable a model finds a text: negative log-likelihood by token, line and document, in nats.

The rule: a text, or a line scored by itself, starts from the zero state after one newline token. Every token
counts, the line's own newline too unless the input lacks it. An unknown token costs what the model gives its
unknown token, and unknowns are counted. Characters and bytes are those of the original text, so that models of
characters and of words compare.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from charlm.engine import START, Array, Engine
from charlm.tokenizer import UNKNOWN_ID, Ids

ROWS = 128
"""Lines scored at a time: from here on a matrix product gains little by more."""

BLOCK = 2**22
"""Numbers held at a time, in logits or gates, whatever the length of the text."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a text costs.

    Attributes:
        nll_nats: Negative log-likelihood of the whole, in nats.
        tokens: Tokens counted.
        unknowns: How many of them are unknown to the model.
        unknown_nats: The part of `nll_nats` that they cost.
        chars: Characters of the text.
        bytes: Bytes of the text in UTF-8.
    """

    nll_nats: float
    tokens: int
    unknowns: int
    unknown_nats: float
    chars: int
    bytes: int

    @property
    def nats_per_token(self) -> float:
        """Mean cost of a token, in nats."""
        return self.nll_nats / self.tokens

    @property
    def nats_per_char(self) -> float:
        """Mean cost of a character, in nats."""
        return self.nll_nats / self.chars

    @property
    def bits_per_token(self) -> float:
        """Mean cost of a token, in bits."""
        return self.nats_per_token / math.log(2)

    @property
    def bits_per_char(self) -> float:
        """Mean cost of a character, in bits."""
        return self.nats_per_char / math.log(2)

    @property
    def bits_per_byte(self) -> float:
        """Mean cost of a byte of UTF-8, in bits."""
        return self.nll_nats / self.bytes / math.log(2)

    @property
    def perplexity(self) -> float:
        """Exponential of the mean cost of a token; infinite where it is beyond a float."""
        return _exp(self.nats_per_token)

    @property
    def perplexity_of_known(self) -> float:
        """The same without the unknown tokens; not a number if all are unknown."""
        known = self.tokens - self.unknowns
        return _exp((self.nll_nats - self.unknown_nats) / known) if known else math.nan


def score_text(engine: Engine, text: str) -> Score:
    """Score a text as one stream.

    Raises:
        ValueError: If the text is empty.
    """
    if not text:
        raise ValueError("an empty text has no score")
    ids = engine.tokenizer.encode(START + text)
    return _score(text, ids[1:], _costs(engine, ids[None, :])[0])


def score_lines(engine: Engine, lines: Sequence[str]) -> list[Score]:
    """Score lines, each by itself, many at a time.

    Args:
        engine: The model.
        lines: The lines with their newlines; none is empty.

    Returns:
        Their scores, in the same order.
    """
    encoded = [engine.tokenizer.encode(START + line) for line in lines]
    lengths = np.array([len(ids) for ids in encoded])
    scores: dict[int, Score] = {}
    order = np.argsort(lengths, kind="stable")  # alike in length, little is padded
    for begin in range(0, len(order), ROWS):
        batch = order[begin : begin + ROWS]
        padded = np.zeros((len(batch), lengths[batch[-1]]), dtype=np.intp)
        for row, index in enumerate(batch):
            padded[row, : lengths[index]] = encoded[index]
        for index, costs in zip(batch, _costs(engine, padded), strict=True):
            scores[index] = _score(lines[index], encoded[index][1:], costs[: lengths[index] - 1])
    return [scores[index] for index in range(len(lines))]


def _costs(engine: Engine, ids: Ids | npt.NDArray[np.intp]) -> Array:
    """The cost in nats of each token of (B, T + 1) ids but the first, (B, T), read from the zero state."""
    state = engine.zero_state(len(ids))
    steps = max(1, BLOCK // (len(ids) * max(engine.config.vocab_size, 4 * engine.config.hidden_size)))
    costs: Array = np.empty((len(ids), ids.shape[1] - 1), dtype=np.float32)
    for begin in range(0, costs.shape[1], steps):
        end = begin + steps
        logits = engine.logits(engine.read(ids[:, begin : min(end, costs.shape[1])], state))
        targets = ids[:, begin + 1 : end + 1, None].astype(np.intp)
        logits -= logits.max(axis=-1, keepdims=True)
        chosen = np.take_along_axis(logits, targets, axis=-1)[..., 0]
        costs[:, begin:end] = np.log(np.exp(logits, out=logits).sum(axis=-1)) - chosen
    return costs


def _score(text: str, ids: Ids, costs: Array) -> Score:
    unknown = ids == UNKNOWN_ID
    return Score(
        nll_nats=float(costs.sum(dtype=np.float64)),
        tokens=len(ids),
        unknowns=int(unknown.sum()),
        unknown_nats=float(costs[unknown].sum(dtype=np.float64)),
        chars=len(text),
        bytes=len(text.encode("utf-8", "surrogateescape")),
    )


def _exp(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf
