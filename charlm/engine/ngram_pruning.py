"""Pruning of n-gram models: leave out the n-grams whose probability is close to that of the next shorter ones.

Without the n-gram h w of weight f, the backoff of its context grows from b to b + f. The probability p(w | h) falls to
p'(w | h) = (b + f) p(w | h'), and the tokens without an n-gram of this context gain. The score of the n-gram is the
relative entropy between the model with it and the model without it:

    p(h) (p(w | h) ln(p(w | h) / p'(w | h)) - b (1 - p(w | h')) ln((b + f) / b))

The probability p(h) is the share of h in the text. That of the model would be wrong, because its counts of short
n-grams are numbers of preceding tokens. An n-gram that is the context of a kept one is kept.

The weights of the kept n-grams then follow from counts to which those of the n-grams that are left out are added.

Shapes: E number of n-grams of one order.

Source:
    Stolcke, Entropy-based pruning of backoff language models, 1998; Chelba et al., Study on interaction between entropy
    pruning and Kneser-Ney smoothing, 2010.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from charlm.engine.kneser_ney import round_down
from charlm.engine.ngram import Level, NGram
from charlm.engine.ngram_counts import Counts, Integers, begins_of

WEIGHT_BYTES = 2
"""Bytes of a weight in half precision."""

BISECTIONS = 60
"""Number of steps of the search for the threshold of the scores. It makes the threshold exact."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class EstimatedOrder:
    """N-grams of one order with their weights.

    Attributes:
        level: The n-grams as a level of a model, with weights in single precision.
        contexts: Index of the context of each among those of the next lower order, (E,).
        suffixes: Index of each without its first token among those of the next lower order, (E,).
        occurrences: Number of occurrences of each in the text, (E,).
        counts: Count of each, from which its weight follows, (E,).
        totals: Sum of the counts of each context, those of n-grams that are left out included, (C,).
        discounts: Discounts of the counts 0, 1, 2, and 3 or more, (4,).
    """

    level: Level
    contexts: Integers
    suffixes: Integers
    occurrences: Counts
    counts: Counts
    totals: Counts
    discounts: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.contexts)


def prune(orders: Sequence[EstimatedOrder], max_bytes: float, num_tokens: int) -> NGram:
    """Return a model in half precision that needs up to `max_bytes` bytes.

    The single tokens are always kept. Their weights stay in single precision, because those of rare words are too small
    for half precision.

    Args:
        orders: The n-grams of order 1, 2, ..., N.
        max_bytes: Maximum size of the arrays of the model.
        num_tokens: Number of tokens of the text.
    """
    scores = _scores(orders, num_tokens)
    threshold = _threshold(orders, scores, max_bytes)
    kept = [np.ones(len(orders[0]), dtype=np.bool_), *(order_scores > threshold for order_scores in scores)]
    weights = _weights(orders, kept)
    levels: list[Level] = []
    new_index = np.arange(len(orders[0]))
    num_contexts = len(orders[0])
    for order, is_kept, exact in zip(orders[1:], kept[1:], weights[1:], strict=True):
        if not is_kept.any():
            break
        contexts = new_index[order.contexts[is_kept]]
        rounded = round_down(exact[is_kept], np.float16)
        levels.append(Level(order.level.tokens[is_kept], rounded, begins_of(contexts, num_contexts)))
        new_index, num_contexts = np.cumsum(is_kept) - 1, len(rounded)
    return NGram(round_down(weights[0], np.float32), levels)


def _weights(orders: Sequence[EstimatedOrder], kept: Sequence[npt.NDArray[np.bool_]]) -> list[npt.NDArray[np.float64]]:
    """Return the weights of the n-grams of order 1, 2, ..., N.

    In Kneser-Ney smoothing, an n-gram adds 1 to the count of its suffix, because its own weight is for the other
    occurrences. An n-gram that is left out adds all of its count.

    Args:
        orders: The n-grams.
        kept: Whether each is kept, (E,), for each order.

    Source:
        Siivola, Hirsimaki and Virpioja, On growing and pruning Kneser-Ney smoothed n-gram models, 2007.
    """
    weights = []
    added: Counts = np.zeros(len(orders[-1]), dtype=np.int64)
    for place in range(len(orders) - 1, -1, -1):
        order = orders[place]
        counts = order.counts + added
        totals = order.totals + np.bincount(order.contexts, added, minlength=len(order.totals))
        weights.append((counts - order.discounts[np.minimum(counts, 3)]) / np.maximum(totals, 1)[order.contexts])
        if place:
            out = ~kept[place]
            lower = len(orders[place - 1])
            added = np.bincount(order.suffixes[out], counts[out] - 1, minlength=lower).astype(np.int64)
    return weights[::-1]


def _scores(orders: Sequence[EstimatedOrder], num_tokens: int) -> list[Floats]:
    """Return the scores of the n-grams of order 2, ..., N, each the maximum over the n-gram and its extensions."""
    weights = orders[0].level.weights
    probs = weights + (1 - weights.sum(dtype=np.float64)) / len(weights)
    scores = []
    for lower, order in itertools.pairwise(orders):
        shorter = probs[order.suffixes]
        backoffs = np.maximum(order.level.backoffs[order.contexts], 1e-9)
        kept = order.level.weights + backoffs * shorter
        growth = np.log1p(order.level.weights / backoffs)
        cost = kept * (np.log(kept / shorter) - np.log(backoffs) - growth) - backoffs * (1 - shorter) * growth
        scores.append((np.maximum(cost, 0) * lower.occurrences[order.contexts] / num_tokens).astype(np.float32))
        probs = kept
    for lower_scores, order, order_scores in zip(scores[-2::-1], orders[:1:-1], scores[:0:-1], strict=True):
        np.maximum.at(lower_scores, order.contexts, order_scores)
    return scores


def _threshold(orders: Sequence[EstimatedOrder], scores: Sequence[Floats], max_bytes: float) -> float:
    """Return the score that the kept n-grams exceed; -1 to keep all."""
    sizes = [_index_bytes(order) for order in orders[1:]] + [0]
    token_bytes = 1 if len(orders[0]) <= 2**8 else 4
    budget = max_bytes - len(orders[0]) * (np.dtype(np.float32).itemsize + sizes[0])
    costs = [WEIGHT_BYTES + token_bytes + size for size in sizes[1:]]
    ordered = [np.sort(order_scores) for order_scores in scores]

    def size_above(threshold: float) -> float:
        return sum(
            cost * (len(part) - int(np.searchsorted(part, np.float32(threshold), side="right")))
            for cost, part in zip(costs, ordered, strict=True)
        )

    if size_above(-1) <= budget:
        return -1.0
    low, high = 1e-30, max(float(part[-1]) for part in ordered if len(part))
    for _ in range(BISECTIONS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if size_above(middle) <= budget else (middle, high)
    return high


def _index_bytes(order: EstimatedOrder) -> int:
    """Return the number of bytes that the index of an order has per context: 1, or 4 if a context has many n-grams."""
    return 1 if np.diff(order.level.begins.astype(np.int64)).max(initial=0) < 2**8 else 4
