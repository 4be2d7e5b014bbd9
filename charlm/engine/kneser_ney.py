"""Estimation of n-gram models with interpolated modified Kneser-Ney smoothing.

The count of an n-gram of the highest order is its number of occurrences. The count of a shorter one is the number of
different tokens that precede it. At the start of a sequence nothing precedes it, and each occurrence counts. The
weights of `charlm.engine.ngram` follow from the counts:

    weight(h w) = (count(h w) - D(count(h w))) / sum of count(h v) over all v

Each order has its own discounts D, for the counts 1, 2, and 3 or more.

Shapes: T number of tokens, V vocabulary, S number of sequences, E number of n-grams of one order.

Source:
    Chen and Goodman, An empirical study of smoothing techniques for language modeling, 1998, section 4.1.4.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from charlm.engine.ngram import Floats, Level, NGram
from charlm.engine.ngram_counts import CountedNGrams, Counts, NGramCounter, begins_of
from charlm.text.ids import smallest_dtype

FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""Discounts of an order that has too few n-grams to estimate them; the default of KenLM's `--discount_fallback`."""


def estimate(
    ids: npt.NDArray[Any],
    *,
    order: int,
    vocab_size: int,
    starts: npt.ArrayLike = 0,
    times: npt.ArrayLike = 1,
    dtype: type[np.floating[Any]] = np.float32,
) -> NGram:
    """Return the model of all n-grams of a text, or of many short sequences.

    Args:
        ids: The sequences, one after the other, (T,), integers below `vocab_size`. The first token of a sequence is
            only a context.
        order: N, at least 1.
        vocab_size: V.
        starts: Index of the first token of each sequence, (S,), in ascending order; the first is 0.
        times: Number of times that each sequence counts, (S,), integers; or one number for all.
        dtype: Number format of the weights.
    """
    counter = NGramCounter(ids, vocab_size, starts, times)
    levels: list[Level] = []
    num_contexts = 1
    for _ in range(order - 1):
        ngrams = counter.extend()
        levels.append(level_of(ngrams, ngrams.continuation_counts, num_contexts, vocab_size, dtype))
        num_contexts = len(ngrams)
    levels.append(level_of(counter.current, counter.current.raw_counts, num_contexts, vocab_size, dtype))
    return NGram(levels[0].weights, levels[1:])


def level_of(
    ngrams: CountedNGrams, counts: Counts, num_contexts: int, vocab_size: int, dtype: type[np.floating[Any]]
) -> Level:
    """Return the n-grams of one order, with the weights that follow from their counts.

    The weights are rounded towards zero, so that those of a context never sum to 1.

    Args:
        ngrams: The n-grams.
        counts: Their counts, (E,).
        num_contexts: Number of n-grams of the next lower order.
        vocab_size: V.
        dtype: Number format of the weights.
    """
    totals = np.bincount(ngrams.contexts, counts, minlength=num_contexts)
    discounts = np.array([0, *discounts_of(counts, ngrams.num_left_out)])[np.minimum(counts, 3)]
    exact = (counts - discounts) / np.maximum(totals, 1)[ngrams.contexts]
    tokens = ngrams.tokens.astype(smallest_dtype(vocab_size))
    return Level(tokens, round_down(exact, dtype), begins_of(ngrams.contexts, num_contexts))


def round_down(numbers: npt.NDArray[np.float64], dtype: type[np.floating[Any]]) -> Floats:
    """Return numbers, which are not negative, in another format, rounded towards zero."""
    rounded: Floats = numbers.astype(dtype)
    return np.where(rounded > numbers, np.nextafter(rounded, dtype(0)), rounded)


def discounts_of(counts: Counts, num_more: int = 0) -> tuple[float, float, float]:
    """Return the discounts of the counts 1, 2, and 3 or more, for the n-grams of one order.

    They are `FALLBACK_DISCOUNTS` if there are no n-grams of a count from 1 to 4, or if a discount would not be between
    0 and its count.

    Args:
        counts: Counts of the n-grams of one order, (E,).
        num_more: Number of n-grams with the count 1 that are not among them.
    """
    n1, n2, n3, n4 = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].tolist()
    n1 += num_more
    if not n1 * n2 * n3 * n4:
        return FALLBACK_DISCOUNTS
    share = n1 / (n1 + 2 * n2)
    one, two, three = 1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3
    if not (0 < one <= 1 and 0 < two <= 2 and 0 < three <= 3):
        return FALLBACK_DISCOUNTS
    return one, two, three
