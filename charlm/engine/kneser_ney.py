"""Estimation of n-gram models with interpolated modified Kneser-Ney smoothing.

The count of an n-gram of the highest order is its number of occurrences. The count of a shorter one is the number of
different tokens that precede it. At the start of a sequence nothing precedes it, and each occurrence counts. The
weights of `charlm.engine.ngram` follow from the counts:

    weight(h w) = (count(h w) - D(count(h w))) / sum of count(h v) over all v

Each order has its own discounts D, for the counts 1, 2, and 3 or more.

N-grams are counted by sorting integers of 64 bits.

Shapes: T number of tokens, V vocabulary, S number of sequences, E number of n-grams of one order.

Source:
    Chen and Goodman, An empirical study of smoothing techniques for language modeling, 1998, section 4.1.4.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from charlm.engine.ngram import Floats, Indices, Level, NGram
from charlm.text.ids import smallest_dtype

FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""Discounts of an order that has too few n-grams to estimate them; the default of KenLM's `--discount_fallback`."""

MAX_KEY_BITS = 64
"""Number of bits of a key."""

Counts = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]


class _Counted(NamedTuple):
    """Distinct n-grams of one order, sorted by their context, then by their last token.

    Attributes:
        contexts: Index of the context of each among the n-grams of the next lower order, (E,).
        tokens: Last token of each, (E,).
        counts: Count of each, (E,).
    """

    contexts: Indices
    tokens: Indices
    counts: Counts


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
    bits = (vocab_size - 1).bit_length()
    if len(starts) == 1 and np.ndim(times) == 0 and times == 1 and bits * order < MAX_KEY_BITS and len(ids) >= order:
        counted = _count_text(ids, order, vocab_size, bits)
    else:
        counted = _count_sequences(ids, order, vocab_size, starts, times)
    levels: list[Level] = []
    num_contexts = 1
    for ngrams in counted:
        levels.append(_level(ngrams, num_contexts, vocab_size, dtype))
        num_contexts = len(ngrams.tokens)
    return NGram(levels[0].weights, levels[1:])


def _count_text(ids: npt.NDArray[Any], order: int, vocab_size: int, bits: int) -> list[_Counted]:
    """Count the n-grams of one text, from order 1 to N.

    An n-gram is a key: the bits of its tokens, one after the other. Only the keys of the highest order are as many as
    the tokens. Those of a lower order are the distinct keys of the next higher one, without their first token.

    Args:
        ids: The text, (T,), with at least N tokens.
        order: N.
        vocab_size: V.
        bits: Number of bits of a token.
    """
    keys: Keys = np.zeros(len(ids) - order + 1, dtype=np.uint64)
    for place in range(order):
        keys <<= np.uint64(bits)
        keys |= ids[place : place + len(keys)].astype(np.uint64)
    if order == 1:
        keys = keys[1:]  # the first token is only a context
    keys.sort()
    found = [_run_lengths(keys)]
    for length in range(order - 1, 0, -1):
        keys = found[0][0] & np.uint64((1 << bits * length) - 1)
        if length > 1:
            first = functools.reduce(lambda key, token: key << bits | token, ids[:length].tolist(), 0)
            keys = np.append(keys, np.uint64(first))
        keys.sort()
        found.insert(0, _run_lengths(keys))
    lower = np.arange(vocab_size, dtype=np.uint64)  # all tokens, also those that do not occur
    unigrams: Counts = np.zeros(vocab_size, dtype=np.int64)
    unigrams[found[0][0].astype(np.intp)] = found[0][1]
    counted = [_Counted(np.zeros(vocab_size, dtype=np.intp), np.arange(vocab_size), unigrams)]
    for keys, counts in found[1:]:
        prefixes = keys >> np.uint64(bits)
        begins = np.append(np.searchsorted(prefixes, lower), len(keys))
        contexts = np.repeat(np.arange(len(lower)), np.diff(begins))
        tokens = (keys & np.uint64((1 << bits) - 1)).astype(np.intp)
        counted.append(_Counted(contexts, tokens, counts))
        lower = keys
    return counted


def _run_lengths(keys: Keys) -> tuple[Keys, Counts]:
    """Return the distinct values of a sorted array, and the number of times that each occurs."""
    begins = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(0, np.intp)
    return keys[begins], np.diff(begins, append=len(keys))


def _count_sequences(
    ids: npt.NDArray[Any], order: int, vocab_size: int, starts: Indices, times: npt.ArrayLike
) -> list[_Counted]:
    """Count the n-grams of sequences, from order 1 to N, for any order and vocabulary.

    An n-gram is a number: the index of its context among the n-grams of the next lower order, times V, plus its last
    token. These numbers always fit into 64 bits.

    Args:
        ids: The sequences, (T,).
        order: N.
        vocab_size: V.
        starts: Index of the first token of each sequence, (S,).
        times: Number of times that each sequence counts.
    """
    lengths = np.diff(starts, append=len(ids))
    ages = np.arange(len(ids)) - np.repeat(starts, lengths)  # number of tokens before each one in its sequence
    occurrences = np.repeat(np.broadcast_to(np.asarray(times, dtype=np.int64), len(starts)), lengths)

    counted: list[_Counted] = []
    numbers: Counts = np.arange(vocab_size)  # of the distinct n-grams of one order
    ranks: Indices = np.array(ids, dtype=np.intp)  # index of the n-gram that ends at each token
    for length in range(1, order + 1):
        longer = np.flatnonzero(ages >= length)  # ends of the n-grams of the next order
        if length < order:
            next_numbers, firsts, next_ranks = _sort(ranks[longer - 1] * vocab_size + ids[longer])
            counts = np.bincount(ranks[longer[firsts]], minlength=len(numbers))
            ends = np.flatnonzero(ages == length - 1) if length > 1 else longer[:0]
        else:
            counts = np.zeros(len(numbers), dtype=np.int64)
            ends = np.flatnonzero(ages >= max(1, length - 1))
        counts += np.bincount(ranks[ends], occurrences[ends], minlength=len(numbers)).astype(np.int64)
        contexts, tokens = np.divmod(numbers, vocab_size)
        counted.append(_Counted(contexts, tokens, counts))
        if length < order:
            numbers = next_numbers
            ranks[longer] = next_ranks
    return counted


def _sort(numbers: Counts) -> tuple[Counts, Indices, Indices]:
    """Return the distinct numbers in ascending order, the position of one occurrence of each, and the index of each."""
    order = np.argsort(numbers)
    ordered = numbers[order]
    is_first = np.ones(len(numbers), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    indices = np.empty(len(numbers), dtype=np.intp)
    indices[order] = np.cumsum(is_first) - 1
    return ordered[is_first], order[is_first], indices


def _level(ngrams: _Counted, num_contexts: int, vocab_size: int, dtype: type[np.floating[Any]]) -> Level:
    """Return the n-grams of one order, with the weights that follow from their counts.

    The weights are rounded towards zero, so that those of a context never sum to 1.

    Args:
        ngrams: The n-grams with their counts.
        num_contexts: Number of n-grams of the next lower order.
        vocab_size: V.
        dtype: Number format of the weights.
    """
    contexts, tokens, counts = ngrams
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
