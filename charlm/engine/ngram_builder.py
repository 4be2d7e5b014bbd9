"""Choice of the order of an n-gram model on a validation text, and estimation of the model.

The n-grams are counted order by order. After each order, the loss of the model of this order on the validation text is
known, so that counting stops when the loss no longer falls.

Shapes: T number of tokens, S number of sequences, V vocabulary.
"""

import copy
import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from charlm.engine.kneser_ney import discounts_of, level_of
from charlm.engine.ngram import NOT_FOUND, Level, NGram
from charlm.engine.ngram_counts import CountedNGrams, Counts, Integers, NGramCounter, begins_of
from charlm.engine.ngram_pruning import EstimatedOrder, prune
from charlm.text.ids import Ids

MIN_ORDER_GAIN = 0.001
"""Reduction of the loss, in nats per token, that the next higher order must bring."""


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Sequences of tokens. The first token of each is only a context.

    Attributes:
        ids: The sequences, one after the other, (T,).
        starts: Index of the first token of each sequence, (S,), in ascending order; the first is 0.
    """

    ids: Ids
    starts: npt.NDArray[np.intp] = field(default_factory=lambda: np.zeros(1, dtype=np.intp))

    def nats(self, ngram: NGram) -> npt.NDArray[np.float32]:
        """Return the loss of a model at each token except the first ones of the sequences, (T - S,), in nats."""
        return np.delete(ngram.nats(self.ids, self.starts), self.starts)

    def states(self, ngram: NGram) -> npt.NDArray[np.int32]:
        """Return the state of a model of order K before the same tokens, (K - 1, T - S)."""
        return np.delete(ngram.states(self.ids, self.starts), self.starts, axis=1)


@dataclass(frozen=True, kw_only=True)
class NGramFit:
    """N-gram model of a text.

    Attributes:
        model: The model.
        num_counted: Number of n-grams before pruning.
        losses: Loss on the validation text before pruning, in nats per token, by order.
    """

    model: NGram
    num_counted: int
    losses: dict[int, float]


def fit(
    text: Sequences,
    vocab_size: int,
    *,
    max_order: int,
    max_bytes: float,
    repeated_order: int,
    validation: Sequences | None = None,
) -> NGramFit:
    """Return the model of a text.

    Args:
        text: The text.
        vocab_size: V.
        max_order: Maximum order.
        max_bytes: Maximum size of the arrays of the model in bytes. If all n-grams need more, those that matter least
            are left out.
        repeated_order: Order from which an n-gram must occur twice. Those of lower orders that occur once are kept if
            their context occurs twice.
        validation: Text on which the order is chosen; None to use `max_order`.
    """
    counter = NGramCounter(text.ids, vocab_size, text.starts, min_occurrences=2)
    lower: list[_Order] = []
    best: list[_Order] = []
    losses: dict[int, float] = {}
    probs = None if validation is None else _TokenProbabilities(validation, vocab_size)
    while True:
        min_occurrences = 2 if counter.order >= repeated_order else 1
        below = lower[-1] if lower else None
        highest = _estimate(counter.current, counter.current.raw_counts, below, vocab_size, min_occurrences)
        if probs is not None:
            losses[counter.order] = probs.extended(highest.ngrams.level).mean_nats
            if losses[counter.order] > losses.get(counter.order - 1, math.inf) - MIN_ORDER_GAIN:
                break
        best = [*lower, highest]
        if counter.order == max_order:
            break
        counted = counter.extend()
        lower.append(_estimate(counted, counted.continuation_counts, below, vocab_size, min_occurrences))
        if probs is not None:
            probs = probs.extended(lower[-1].ngrams.level)
    orders = [order.ngrams for order in best]
    model = prune(orders, max_bytes, len(text.ids))
    return NGramFit(model=model, num_counted=sum(map(len, orders)), losses=losses)


@dataclass(frozen=True, kw_only=True)
class _Order:
    """N-grams of one order without those that occur too rarely.

    Attributes:
        ngrams: The n-grams.
        kept: Whether each n-gram that was counted is kept.
        new_index: Index among them of each n-gram that was counted. It has no meaning for those that are left out.
            They are neither the context nor the suffix of a longer n-gram, because those occur at least twice.
    """

    ngrams: EstimatedOrder
    kept: npt.NDArray[np.bool_]
    new_index: Integers


def _estimate(
    counted: CountedNGrams, counts: Counts, below: _Order | None, vocab_size: int, min_occurrences: int
) -> _Order:
    """Return the n-grams of one order with the weights that follow from their counts.

    Args:
        counted: The n-grams.
        counts: Their counts.
        below: Those of the next lower order; None for the single tokens, which are all kept.
        vocab_size: V.
        min_occurrences: Number of occurrences from which an n-gram is kept.
    """
    num_contexts = 1 if below is None else len(below.new_index)
    totals = np.bincount(counted.contexts, counts, minlength=num_contexts).astype(np.int64)
    if below is None:
        level = level_of(counted, counts, 1, vocab_size, np.float32)
        kept, contexts, suffixes = np.ones(vocab_size, dtype=np.bool_), counted.contexts, counted.suffixes
    else:
        whole = level_of(counted, counts, len(below.new_index), vocab_size, np.float32)
        kept = counted.occurrences >= min_occurrences
        contexts, suffixes = (below.new_index[part[kept]] for part in (counted.contexts, counted.suffixes))
        level = Level(whole.tokens[kept], whole.weights[kept], begins_of(contexts, len(below.ngrams)))
    return _Order(
        ngrams=EstimatedOrder(
            level=level,
            contexts=contexts,
            suffixes=suffixes,
            occurrences=counted.occurrences[kept],
            counts=counts[kept],
            totals=totals if below is None else totals[below.kept],
            discounts=np.array([0, *discounts_of(counts, counted.num_left_out)]),
        ),
        kept=kept,
        new_index=np.cumsum(kept, dtype=np.int32) - np.int32(1),
    )


class _TokenProbabilities:
    """Probabilities of the tokens of a text by the n-grams of order 1, 2, ..., K.

    Args:
        text: The text.
        vocab_size: V.
    """

    def __init__(self, text: Sequences, vocab_size: int) -> None:
        self._ids = text.ids
        self._is_start = np.zeros(len(text.ids), dtype=np.bool_)
        self._is_start[text.starts] = True
        self._contexts = np.zeros(len(text.ids), dtype=np.intp)  # the empty context
        self._probs = np.full(len(text.ids), 1 / vocab_size)

    @property
    def mean_nats(self) -> float:
        """Mean negative log-probability in nats per token. The first token of a sequence is not counted."""
        return float(-np.log(self._probs[~self._is_start]).mean())

    def extended(self, level: Level) -> "_TokenProbabilities":
        """Return the probabilities with the n-grams of one more order."""
        result = copy.copy(self)
        known = np.flatnonzero(self._contexts != NOT_FOUND)
        contexts = self._contexts[known]
        found = np.full(len(self._ids), NOT_FOUND, dtype=np.intp)
        found[known] = level.find(contexts, self._ids[known])
        result._probs = self._probs.copy()
        result._probs[known] *= level.backoffs[contexts]
        hits = np.flatnonzero(found != NOT_FOUND)
        result._probs[hits] += level.weights[found[hits]]
        result._contexts = np.full(len(self._ids), NOT_FOUND, dtype=np.intp)
        result._contexts[1:] = found[:-1]
        result._contexts[self._is_start] = NOT_FOUND
        return result
