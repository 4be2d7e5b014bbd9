"""Estimation of n-gram models with interpolated modified Kneser-Ney smoothing.

The count of an n-gram of the highest order is its number of occurrences. The count of a shorter one is the number of
different tokens that precede it. At the start of a sequence nothing precedes it, and each occurrence counts. The
weights of `charlm.engine.ngram` follow from the counts:

    weight(h w) = (count(h w) - D(count(h w))) / sum of count(h v) over all v

Each order has its own discounts D, for the counts 1, 2, and 3 or more.

N-grams are counted by sorting. Each n-gram has a number: the index of its context among the n-grams of the next lower
order, times V, plus its last token. These numbers fit into 64 bits for every order.

Shapes: T number of tokens, V vocabulary, S number of sequences, E number of n-grams of one order.

Source:
    Chen and Goodman, An empirical study of smoothing techniques for language modeling, 1998, section 4.1.4.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from charlm.engine.ngram import Floats, Indices, Level, NGram
from charlm.text.ids import smallest_dtype

FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""Discounts of an order that has too few n-grams to estimate them; the default of KenLM's `--discount_fallback`."""

Counts = npt.NDArray[np.int64]


def estimate(
    ids: npt.NDArray[Any],
    *,
    order: int,
    vocab_size: int,
    starts: npt.ArrayLike = 0,
    times: npt.ArrayLike = 1,
    dtype: type[np.floating[Any]] = np.float32,
) -> NGram:
    """Return the model of a text, or of many short sequences.

    Args:
        ids: The sequences, one after the other, (T,), integers below `vocab_size`. The first token of a sequence is
            only a context.
        order: N, at least 1.
        vocab_size: V.
        starts: Index of the first token of each sequence, (S,), in ascending order; the first is 0.
        times: Number of times that each sequence counts, (S,), integers; or one number for all.
        dtype: Number format of the weights.
    """
    starts = np.atleast_1d(np.asarray(starts, dtype=np.intp))
    lengths = np.diff(starts, append=len(ids))
    ages = np.arange(len(ids)) - np.repeat(starts, lengths)  # number of tokens before each one in its sequence
    occurrences = np.repeat(np.broadcast_to(np.asarray(times, dtype=np.int64), len(starts)), lengths)

    numbers: Counts = np.arange(vocab_size)  # of the distinct n-grams of one order
    ranks: Indices = np.array(ids, dtype=np.intp)  # index of the n-gram that ends at each token
    num_contexts = 1
    levels: list[Level] = []
    for length in range(1, order + 1):
        longer = np.flatnonzero(ages >= length)  # ends of the n-grams of the next order
        if length < order:
            next_numbers, firsts, next_ranks = _sort(ranks[longer - 1] * vocab_size + ids[longer])
            counts = np.bincount(ranks[longer[firsts]], minlength=len(numbers))
            counted = np.flatnonzero(ages == length - 1) if length > 1 else longer[:0]
        else:
            counts = np.zeros(len(numbers), dtype=np.int64)
            counted = np.flatnonzero(ages >= max(1, length - 1))
        counts += np.bincount(ranks[counted], occurrences[counted], minlength=len(numbers)).astype(np.int64)
        levels.append(_level(numbers, counts, num_contexts, vocab_size, dtype))
        if length < order:
            num_contexts, numbers = len(numbers), next_numbers
            ranks[longer] = next_ranks
    return NGram(levels[0].weights, levels[1:])


def _sort(numbers: Counts) -> tuple[Counts, Indices, Indices]:
    """Return the distinct numbers in ascending order, the position of one occurrence of each, and the index of each."""
    order = np.argsort(numbers)
    ordered = numbers[order]
    is_first = np.ones(len(numbers), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    indices = np.empty(len(numbers), dtype=np.intp)
    indices[order] = np.cumsum(is_first) - 1
    return ordered[is_first], order[is_first], indices


def _level(numbers: Counts, counts: Counts, num_contexts: int, vocab_size: int, dtype: type[np.floating[Any]]) -> Level:
    """Return the n-grams of one order, with the weights that follow from their counts.

    The weights are rounded towards zero, so that those of a context never sum to 1.

    Args:
        numbers: Numbers of the n-grams, (E,).
        counts: Their counts, (E,).
        num_contexts: Number of n-grams of the next lower order.
        vocab_size: V.
        dtype: Number format of the weights.
    """
    contexts, tokens = np.divmod(numbers, vocab_size)
    totals = np.bincount(contexts, counts, minlength=num_contexts)
    discounts = np.array([0, *discounts_of(counts)])[np.minimum(counts, 3)]
    exact = (counts - discounts) / np.maximum(totals, 1)[contexts]
    weights: Floats = exact.astype(dtype)
    weights = np.where(weights > exact, np.nextafter(weights, dtype(0)), weights)
    begins = np.searchsorted(contexts, np.arange(num_contexts + 1)).astype(np.uint32)
    return Level(tokens.astype(smallest_dtype(vocab_size)), weights, begins)


def discounts_of(counts: Counts) -> tuple[float, float, float]:
    """Return the discounts of the counts 1, 2, and 3 or more, for the n-grams of one order.

    They are `FALLBACK_DISCOUNTS` if there are no n-grams of a count from 1 to 4, or if a discount would not be between
    0 and its count.

    Args:
        counts: Counts of the n-grams of one order, (E,).
    """
    n1, n2, n3, n4 = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].tolist()
    if not n1 * n2 * n3 * n4:
        return FALLBACK_DISCOUNTS
    share = n1 / (n1 + 2 * n2)
    one, two, three = 1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3
    if not (0 < one <= 1 and 0 < two <= 2 and 0 < three <= 3):
        return FALLBACK_DISCOUNTS
    return one, two, three
