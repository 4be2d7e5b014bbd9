"""N-gram model with interpolated weights, as a predictor of token ids.

The probability of token w after the context h is interpolated with that after h', the context without its first token:

    p(w | h) = weight(h w) + backoff(h) p(w | h'),    backoff(h) = 1 - sum of weight(h w) over all w

A context that the model does not know is replaced by h'. The recursion ends at the empty context with the uniform
distribution 1 / V. Only the weights of the n-grams are stored. The backoffs follow from them, so that the probabilities
of every context sum to 1 in any number format. `charlm.engine.kneser_ney` estimates the weights from text.

Layout: the n-grams of one order are sorted by their context, then by their last token. The contexts are the n-grams of
the next lower order, and `begins` has the range of n-grams of each context. A search goes from one token to two, three
and more; it never needs a key for a whole n-gram, so that order and vocabulary are not limited by the size of integers.

Shapes: B batch, T number of tokens, V vocabulary, N order, E number of n-grams of one order, C number of contexts.

Source:
    Chen and Goodman, An empirical study of smoothing techniques for language modeling, 1998. The layout is that of the
    trie of KenLM (Heafield, WMT 2011), with indices instead of bit fields.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from charlm.text.ids import smallest_dtype

MAX_ORDER = 32
"""Maximum order of a model."""

MAX_NGRAMS = 2**31 - 1
"""Maximum number of n-grams of one order, so that indices fit into 32 bits."""

Indices = npt.NDArray[np.intp]
State = npt.NDArray[np.signedinteger[Any]]
"""State of sequences; see `NGram.start`."""

Floats = npt.NDArray[np.floating[Any]]

MAX_TABLE_NUMBERS = 2**19
"""Maximum number of probabilities after short contexts that are computed in advance."""

MIN_TABLE_ROWS = 256
"""Number of sequences from which that table is computed, which takes 0.03 seconds for the included model."""

NOT_FOUND = -1
"""Index of a context that the model does not know."""

MIN_PROB = np.float32(1.2e-38)
"""Probability to which smaller ones are raised, so that every logarithm is finite. It is the smallest number that
32-bit floats hold with full precision. Only weights that no text has can reach it."""


class Level:
    """N-grams of one order, at least 2.

    Args:
        tokens: Last token of each n-gram, (E,), unsigned integers.
        weights: Weight of each n-gram, (E,), floats.
        begins: Index of the first n-gram of each context, and E at the end, (C + 1,), integers.
        sums: Sum of the weights of each context, (C,), float64; None to compute it.

    Attributes:
        tokens: As given.
        weights: As given.
        begins: As given.
        backoffs: Backoff of each context, (C,), float32.
    """

    def __init__(
        self,
        tokens: npt.NDArray[Any],
        weights: Floats,
        begins: npt.NDArray[Any],
        sums: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self.tokens = tokens
        self.weights = weights
        self.begins = begins
        self.backoffs = (1 - (_sums(weights, begins) if sums is None else sums)).astype(np.float32)
        self._steps = int(np.diff(begins).max(initial=0)).bit_length()

    def find(self, contexts: Indices, tokens: npt.NDArray[Any]) -> Indices:
        """Return the indices of n-grams, (K,); `NOT_FOUND` for those that are missing.

        This is a binary search for all tokens at the same time, each in the range of its context.

        Args:
            contexts: Indices of the contexts, (K,); `NOT_FOUND` for unknown contexts.
            tokens: Last tokens, (K,), integers.
        """
        if not len(self.tokens):
            return np.full(len(contexts), NOT_FOUND, dtype=np.intp)
        low = self.begins[contexts].astype(np.intp)  # an unknown context has the last index, which is sorted out below
        end = self.begins[contexts + 1].astype(np.intp)
        high = end
        for _ in range(self._steps):
            middle = (low + high) >> 1
            below = (self.tokens.take(middle, mode="clip") < tokens) & (low < high)
            low = np.where(below, middle + 1, low)
            high = np.where(below, high, middle)
        found = (low < end) & (contexts >= 0) & (self.tokens.take(low, mode="clip") == tokens)
        return np.where(found, low, NOT_FOUND)


class NGram:
    """N-gram model: a predictor of the next token from the last N - 1 tokens.

    Args:
        weights: Weights of the single tokens, (V,), floats.
        levels: N-grams of order 2, 3, ..., N.

    Attributes:
        vocab_size: V.
        order: N.
        levels: As given.
        unigrams: Probability of each token after an unknown context, (V,), float32.

    Example:
        >>> from charlm.engine.kneser_ney import estimate
        >>> model = estimate(np.array([0, 1, 2, 1, 2, 1]), order=2, vocab_size=3)
        >>> model.log_probs(model.advance(model.start(), np.array([2]))).argmax()
        np.int64(1)
    """

    def __init__(self, weights: Floats, levels: Sequence[Level]) -> None:
        self.vocab_size = len(weights)
        self.order = 1 + len(levels)
        self.levels = tuple(levels)
        self._weights = weights
        self._unigrams = weights + (1 - weights.sum(dtype=np.float64)) / self.vocab_size
        self.unigrams: npt.NDArray[np.float32] = self._unigrams.astype(np.float32)

    @property
    def num_bytes(self) -> int:
        """Size of the arrays of `to_tensors` in bytes."""
        return sum(array.nbytes for array in self.to_tensors().values())

    @property
    def num_ngrams(self) -> int:
        """Number of n-grams of all orders."""
        return self.vocab_size + sum(len(level.tokens) for level in self.levels)

    def start(self, batch_size: int = 1) -> Indices:
        """Return the state of B = `batch_size` sequences before their first token.

        A state has the index of the last 1, 2, ..., N - 1 tokens among the n-grams of this order, (N - 1, B).
        """
        return np.full((self.order - 1, batch_size), NOT_FOUND, dtype=np.intp)

    def advance(self, state: Indices, ids: npt.NDArray[Any]) -> Indices:
        """Return the state after one more token of each sequence.

        Args:
            state: State, (N - 1, B).
            ids: Token ids, (B,), integers.
        """
        after = np.empty_like(state)
        after[:1] = ids
        for index in range(1, len(after)):
            after[index] = self.levels[index - 1].find(state[index - 1], ids)
        return after

    def log_probs(self, state: State) -> npt.NDArray[np.float32]:
        """Return the log-probabilities of the next token, (B, V), float32, in nats.

        Args:
            state: State, (N - 1, B).
        """
        log_probs: npt.NDArray[np.float32] = np.log(np.maximum(self.probs(state), MIN_PROB))
        return log_probs

    def probs(self, state: State) -> npt.NDArray[np.float32]:
        """Return the probabilities of the next token, (B, V), float32.

        Args:
            state: State, (N - 1, B).
        """
        if state.shape[1] < MIN_TABLE_ROWS and "_table" not in vars(self):
            return self._extended(np.tile(self.unigrams, (state.shape[1], 1)), state, 0)
        table, offsets = self._table
        rows = np.zeros(state.shape[1], dtype=np.intp)
        for offset, contexts in zip(offsets, state, strict=False):
            np.copyto(rows, contexts + offset, where=contexts >= 0)
        return self._extended(table[rows], state, len(offsets))

    @functools.cached_property
    def _table(self) -> tuple[npt.NDArray[np.float32], list[int]]:
        """Probabilities after short contexts, (contexts, V), and the index of the first context of each length.

        The first row is for an unknown context. There are as many lengths as `MAX_TABLE_NUMBERS` allows.
        """
        parts = [self.unigrams[None]]
        offsets: list[int] = []
        state, size = self.start(self.vocab_size), self.vocab_size + 1
        state[:1] = np.arange(self.vocab_size)
        while len(offsets) < len(self.levels) and size * self.vocab_size <= MAX_TABLE_NUMBERS:
            longest = len(offsets)
            shorter = self._extended(np.tile(self.unigrams, (state.shape[1], 1)), state[: longest + 1], 0)
            offsets.append(sum(map(len, parts)))
            parts.append(shorter)
            level = self.levels[longest]
            size += len(level.tokens)
            if size * self.vocab_size <= MAX_TABLE_NUMBERS:
                state = self.advance(np.repeat(state, np.diff(level.begins), axis=1), level.tokens)
        return np.concatenate(parts), offsets

    def _extended(self, probs: npt.NDArray[np.float32], state: State, first: int) -> npt.NDArray[np.float32]:
        """Interpolate the probabilities after short contexts with the weights of longer ones.

        Each weight is multiplied by the backoffs of all longer contexts, so that the whole vocabulary is visited once.

        Args:
            probs: Probabilities after the contexts of up to `first` tokens, (B, V). They are overwritten.
            state: State, (K, B).
            first: Number of tokens of the short contexts.
        """
        factors: npt.NDArray[np.float32] = np.ones(len(probs), dtype=np.float32)
        addends = []
        for level, contexts in zip(self.levels[first : len(state)][::-1], state[first:][::-1], strict=True):
            rows = np.flatnonzero(contexts >= 0)
            known = contexts[rows]
            begins = level.begins[known].astype(np.intp)
            lengths = level.begins[known + 1].astype(np.intp) - begins
            offsets = np.repeat(begins - np.cumsum(lengths) + lengths, lengths)
            indices = offsets + np.arange(len(offsets))
            places = np.repeat(rows * self.vocab_size, lengths) + level.tokens[indices]
            addends.append((places, level.weights[indices] * np.repeat(factors[rows], lengths)))
            factors[rows] *= level.backoffs[known]
        probs *= factors[:, None]
        for places, weights in addends[::-1]:
            probs.reshape(-1)[places] += weights
        return probs

    def nats(self, ids: npt.NDArray[Any], starts: npt.ArrayLike = 0) -> npt.NDArray[np.float32]:
        """Return the negative log-probability of each token of sequences, (T,), float32, in nats.

        The first token of a sequence is only a context. Its number is 0.

        Args:
            ids: The sequences, one after the other, (T,), integers.
            starts: Index of the first token of each sequence, in ascending order.
        """
        probs = self._unigrams[ids]
        for level, contexts, found in self._search(ids, starts):
            known = np.flatnonzero(contexts >= 0)
            probs[known] *= level.backoffs[contexts[known]]
            hits = np.flatnonzero(found >= 0)
            probs[hits] += level.weights[found[hits]]
        nats: npt.NDArray[np.float32] = -np.log(np.maximum(probs, MIN_PROB)).astype(np.float32)
        nats[np.asarray(starts, dtype=np.intp)] = 0
        return nats

    def states(self, ids: npt.NDArray[Any], starts: npt.ArrayLike = 0) -> npt.NDArray[np.int32]:
        """Return the state before each token of sequences, (N - 1, T); see `start` and `nats`."""
        states = np.empty((self.order - 1, len(ids)), dtype=np.int32)
        for row, (_, contexts, _) in zip(states, self._search(ids, starts), strict=True):
            row[:] = contexts
        return states

    def _search(self, ids: npt.NDArray[Any], starts: npt.ArrayLike) -> Iterator[tuple[Level, Indices, Indices]]:
        """Yield each level with the index of the context of each token, (T,), and of the n-gram that ends there, (T,).

        Args:
            ids: The sequences, one after the other, (T,), integers.
            starts: Index of the first token of each sequence.
        """
        first = np.asarray(starts, dtype=np.intp)
        found = np.asarray(ids, dtype=np.intp)
        for level in self.levels:
            contexts = np.full(len(ids), NOT_FOUND, dtype=np.intp)
            contexts[1:] = found[:-1]
            contexts[first] = NOT_FOUND
            known = np.flatnonzero(contexts >= 0)
            found = np.full(len(ids), NOT_FOUND, dtype=np.intp)
            found[known] = level.find(contexts[known], ids[known])
            yield level, contexts, found

    def to_tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the model as arrays; see `from_tensors`.

        The number format is that of the weights. Integers have the smallest format of U8 and I32 that holds them.
        """
        tensors: dict[str, npt.NDArray[Any]] = {"weights.1": self._weights}
        for order, level in enumerate(self.levels, start=2):
            tensors |= {
                f"weights.{order}": level.weights,
                f"tokens.{order}": _compact(level.tokens),
                f"counts.{order}": _compact(np.diff(level.begins)),
            }
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> "NGram":
        """Return the model of arrays, which may be untrusted.

        Args:
            tensors: Arrays by name. For each order K: `weights.K`, (E,), floats; and for K from 2 on, `tokens.K`, (E,),
                integers, the last token of each n-gram, and `counts.K`, (C,), integers, the number of n-grams of each
                context.

        Raises:
            ValueError: If an array is missing, has another shape or number format, or a value is out of range.
        """
        order = sum(name.startswith("weights.") for name in tensors)
        expected = {
            "weights.1",
            *(f"{part}.{k}" for k in range(2, order + 1) for part in ("weights", "tokens", "counts")),
        }
        if tensors.keys() != expected or not 1 <= order <= MAX_ORDER:
            raise ValueError(f"an n-gram model of order {order} with the arrays {', '.join(sorted(tensors))[:200]}")
        weights = _checked(tensors, "weights.1", None, "f")
        vocab_size = num_contexts = len(weights)
        if not vocab_size:
            raise ValueError("an n-gram model without tokens")
        _checked_sums("weights.1", weights, np.array([0, vocab_size]))
        levels = []
        for k in range(2, order + 1):
            level = _checked_level(tensors, k, num_contexts, vocab_size)
            num_contexts = len(level.tokens)
            levels.append(level)
        return cls(weights, levels)


def _checked_level(tensors: Mapping[str, npt.NDArray[Any]], order: int, num_contexts: int, vocab_size: int) -> Level:
    """Return the n-grams of one order from untrusted arrays.

    Raises:
        ValueError: If they are damaged.
    """
    counts = _checked(tensors, f"counts.{order}", num_contexts, "iu")
    tokens = _checked(tensors, f"tokens.{order}", None, "iu")
    weights = _checked(tensors, f"weights.{order}", len(tokens), "f")
    if len(tokens) > MAX_NGRAMS or counts.min(initial=0) < 0 or counts.max(initial=0) > vocab_size:
        raise ValueError(f"counts.{order}: a number of n-grams is out of range")
    begins = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    if begins[-1] != len(tokens):
        raise ValueError(f"counts.{order}: {begins[-1]:,} n-grams instead of {len(tokens):,}")
    if tokens.min(initial=0) < 0 or tokens.max(initial=0) >= vocab_size:
        raise ValueError(f"tokens.{order}: a token is out of range")
    first_of_context = np.zeros(len(tokens) + 1, dtype=np.bool_)
    first_of_context[begins] = True
    if not (first_of_context[1:-1] | (tokens[1:] > tokens[:-1])).all():
        raise ValueError(f"tokens.{order}: the tokens of a context are not in ascending order")
    sums = _checked_sums(f"weights.{order}", weights, begins)
    return Level(tokens.astype(smallest_dtype(vocab_size)), weights, begins.astype(np.uint32), sums)


def _checked(tensors: Mapping[str, npt.NDArray[Any]], name: str, size: int | None, kinds: str) -> npt.NDArray[Any]:
    """Return an array with one dimension, after checking its number format and its size.

    Raises:
        ValueError: If they are wrong.
    """
    array = tensors[name]
    if array.ndim != 1 or array.dtype.kind not in kinds or (size is not None and len(array) != size):
        wanted = "any number" if size is None else f"{size:,}"
        raise ValueError(f"{name} is {array.dtype} {array.shape}, instead of {wanted} of type {kinds}")
    return array


def _checked_sums(name: str, weights: Floats, begins: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the sum of the weights of each context, (C,), float64, which must be below 1.

    Raises:
        ValueError: If a sum reaches 1, or a weight is negative or not a number.
    """
    with np.errstate(invalid="ignore"):  # one of NumPy's warnings about numbers that are not numbers
        sums = _sums(weights, begins)
        # NaN fails every comparison, therefore the conditions are negated.
        is_valid = (weights >= 0).all() and (sums < 1).all()
    if not is_valid:
        raise ValueError(f"{name}: a weight is negative or not a number, or the weights of a context reach 1")
    return sums


def _sums(weights: Floats, begins: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the sum of the weights of each context, (C,), float64."""
    sums = np.zeros(len(begins) - 1)
    filled = np.flatnonzero(begins[1:] > begins[:-1])
    if len(filled):
        sums[filled] = np.add.reduceat(weights, begins[filled].astype(np.intp), dtype=np.float64)
    return sums


def _compact(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return integers in the smallest of the number formats U8 and I32 that holds them."""
    return numbers.astype(np.uint8 if numbers.max(initial=0) < 2**8 else np.int32)
