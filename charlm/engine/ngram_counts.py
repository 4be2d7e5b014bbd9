"""Counts of the n-grams of a text, order by order.

An n-gram of order K + 1 is a number: the index of its context among the n-grams of order K, times V, plus its last
token. The numbers at all positions of the text are sorted. The distinct ones are the n-grams of order K + 1, in the
order in which `charlm.engine.ngram` stores them. Order and vocabulary are not limited by the size of integers.

Shapes: T number of tokens, V vocabulary, S number of sequences, E number of n-grams of one order, P positions at which
one of them ends.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

KEY_BITS = 64
"""Number of bits of the integers that are sorted."""

BLOCK = 2**20
"""Number of integers that are computed at a time, to limit memory."""

NO_NGRAM = -1
"""Index of a position at which no n-gram of the current order ends."""

Integers = npt.NDArray[np.integer[Any]]
Counts = Integers
Keys = npt.NDArray[np.uint64]


@dataclass(kw_only=True)
class CountedNGrams:
    """Distinct n-grams of one order, sorted by their context, then by their last token.

    Attributes:
        contexts: Index of the context of each among the n-grams of the next lower order, (E,).
        suffixes: Index of each without its first token among the n-grams of the next lower order, (E,).
        tokens: Last token of each, (E,).
        occurrences: Number of positions of each in the text, (E,).
        raw_counts: Number of occurrences of each; those of a sequence that counts several times are multiplied, (E,).
        continuation_counts: Number of different tokens that precede each, plus the number of its occurrences at the
            start of a sequence, (E,). It is known after the next order has been counted.
        num_left_out: Number of distinct n-grams that are left out because their context occurs once. Each count of
            theirs is 1.
    """

    contexts: Integers
    suffixes: Integers
    tokens: Integers
    occurrences: Counts
    raw_counts: Counts
    continuation_counts: Counts = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    num_left_out: int = 0

    def __len__(self) -> int:
        return len(self.tokens)


class NGramCounter:
    """Counter of the n-grams of a text, or of many short sequences.

    Args:
        ids: The sequences, one after the other, (T,), integers below `vocab_size`. The first token of a sequence is
            only a context.
        vocab_size: V.
        starts: Index of the first token of each sequence, (S,), in ascending order; the first is 0.
        times: Number of times that each sequence counts, (S,), integers; or one number for all.
        min_occurrences: Number of occurrences, 1 or 2, from which an n-gram is the context of longer ones. With 2,
            n-grams whose context occurs once are left out, and `times` must be 1.

    Attributes:
        order: Order of `current`.
        current: The n-grams of the highest order so far; at first, all V single tokens.
    """

    def __init__(
        self,
        ids: npt.NDArray[Any],
        vocab_size: int,
        starts: npt.ArrayLike = 0,
        times: npt.ArrayLike = 1,
        *,
        min_occurrences: int = 1,
    ) -> None:
        self._ids = ids
        self._vocab_size = vocab_size
        self._min_occurrences = min_occurrences
        self._starts = np.atleast_1d(np.asarray(starts, dtype=np.intp))
        self._lengths = np.diff(self._starts, append=len(ids))
        self._is_start = np.zeros(len(ids) + 1, dtype=np.bool_)
        self._is_start[self._starts] = self._is_start[-1] = True
        self._times = np.broadcast_to(np.asarray(times, dtype=np.int64), len(self._starts))
        self._weights = None if (self._times == 1).all() else np.repeat(self._times, self._lengths)
        self._ranks = ids.astype(np.int32)  # index of the n-gram that ends at each position
        self.order = 1
        counted = np.flatnonzero(~self._is_start[:-1])
        self.current = CountedNGrams(
            contexts=np.zeros(vocab_size, dtype=np.int32),
            suffixes=np.zeros(vocab_size, dtype=np.int32),
            tokens=np.arange(vocab_size),
            occurrences=np.bincount(ids, minlength=vocab_size),
            raw_counts=self._sums(self._ranks[counted], counted, vocab_size),
        )

    def extend(self) -> CountedNGrams:
        """Count the n-grams of the next order.

        Returns:
            Those of the order that was the highest before, now with their `continuation_counts`.
        """
        lower, ranks = self.current, self._ranks
        is_context = np.append(lower.occurrences >= self._min_occurrences, False)  # the last entry is for NO_NGRAM
        ends = np.flatnonzero(is_context[ranks] & ~self._is_start[1:]).astype(np.int32) + np.int32(1)
        numbers = ranks[ends - 1].astype(np.uint64)
        numbers *= np.uint64(self._vocab_size)
        numbers += self._ids[ends].astype(np.uint64)
        numbers, order = _sorted_with_order(numbers, len(lower) * self._vocab_size)
        ends = ends[order]
        del order  # large arrays are removed early, to limit memory
        is_first = np.ones(len(numbers), dtype=np.bool_)
        np.not_equal(numbers[1:], numbers[:-1], out=is_first[1:])
        firsts = np.flatnonzero(is_first)
        numbers = numbers[firsts]
        suffixes = ranks[ends[firsts]]
        lower.continuation_counts = self._continuation_counts(len(lower), suffixes, ends)
        indices = np.cumsum(is_first, dtype=np.int32)
        indices -= 1
        ranks.fill(NO_NGRAM)
        ranks[ends] = indices
        self.order += 1
        occurrences = np.diff(firsts, append=len(ends)).astype(np.int32)
        contexts, tokens = np.divmod(numbers, np.uint64(self._vocab_size))
        self.current = CountedNGrams(
            contexts=contexts.astype(np.int32),
            suffixes=suffixes,
            tokens=tokens.astype(self._ids.dtype),
            occurrences=occurrences,
            raw_counts=occurrences if self._weights is None else self._sums(indices, ends, len(firsts)),
            num_left_out=int(np.maximum(self._lengths - self.order + 1, 0).sum()) - len(ends),
        )
        return lower

    def _continuation_counts(self, num_ngrams: int, suffixes: Integers, ends: Integers) -> Counts:
        """Return the continuation counts of the n-grams of the current order.

        Args:
            num_ngrams: Their number.
            suffixes: Those that are the suffixes of the distinct n-grams of the next order.
            ends: Positions at which the n-grams of the next order end, (P,).
        """
        counts = np.bincount(suffixes, minlength=num_ngrams)
        long_enough = self._lengths >= self.order
        at_start = self._starts[long_enough] + self.order - 1
        if self._min_occurrences > 1:  # those that are left out have suffixes too
            is_left_out = self._ranks != NO_NGRAM
            is_left_out[ends] = False
            for age in range(self.order):
                is_left_out[self._starts[self._lengths > age] + age] = False
            counts += np.bincount(self._ranks[is_left_out], minlength=num_ngrams)
        if self.order > 1:
            found = self._ranks[at_start]
            np.add.at(counts, found[found != NO_NGRAM], self._times[long_enough][found != NO_NGRAM])
        return counts if self._weights is not None else counts.astype(np.int32)

    def _sums(self, indices: Integers, ends: Integers, num_ngrams: int) -> Counts:
        """Return the number of occurrences of the n-grams at some positions, each multiplied by its `times`."""
        if self._weights is None:
            return np.bincount(indices, minlength=num_ngrams)
        return np.bincount(indices, self._weights[ends], minlength=num_ngrams).astype(np.int64)


def _sorted_with_order(numbers: Keys, bound: int) -> tuple[Keys, Integers]:
    """Return numbers in ascending order, and the index that each had before.

    A number and its index are sorted as one integer if both fit into it. This is faster than to sort indices.

    Args:
        numbers: The numbers, (P,). They are overwritten.
        bound: A number above all of them.
    """
    bits = len(numbers).bit_length()
    if bound.bit_length() + bits > KEY_BITS:
        order = np.argsort(numbers, kind="stable").astype(np.int32)
        return numbers[order], order
    for begin in range(0, len(numbers), BLOCK):
        block = numbers[begin : begin + BLOCK]
        block <<= np.uint64(bits)
        block |= np.arange(begin, begin + len(block), dtype=np.uint64)
    numbers.sort()
    order = np.empty(len(numbers), dtype=np.int32)
    for begin in range(0, len(numbers), BLOCK):
        block = numbers[begin : begin + BLOCK]
        order[begin : begin + BLOCK] = block & np.uint64((1 << bits) - 1)
        block >>= np.uint64(bits)
    return numbers, order


def begins_of(contexts: Integers, num_contexts: int) -> npt.NDArray[np.uint32]:
    """Return the index of the first n-gram of each context, and the number of n-grams at the end.

    Args:
        contexts: Index of the context of each n-gram, (E,), in ascending order.
        num_contexts: Number of contexts.
    """
    begins = np.zeros(num_contexts + 1, dtype=np.uint32)
    np.cumsum(np.bincount(contexts, minlength=num_contexts), out=begins[1:])
    return begins
