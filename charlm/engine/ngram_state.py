"""State of sequences that an n-gram model reads token by token.

Many sequences are read with NumPy. For a few sequences, the calls of NumPy would take most of the time. Therefore,
their numbers are read and written as numbers of Python, and the distributions after the latest tokens, which recur, are
remembered.

Shapes: B sequences, V vocabulary, N order, E number of n-grams of one order.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from charlm.engine.ngram import NOT_FOUND, Indices, Level, NGram

CACHED_LEVELS = 4
"""Number of latest tokens whose distribution is remembered."""

MAX_CACHED_NUMBERS = 2**20
"""Maximum number of probabilities that are remembered."""

MAX_SINGLE_NUMBERS = 16
"""Maximum number of n-grams of a context whose weights are added one by one. NumPy is faster for more."""

MAX_SINGLE_ROWS = 32
"""Maximum number of sequences that are read one by one. A step of 4 sequences takes a tenth of the time that it takes
with NumPy, and one of 64 about the same (measured)."""

Probs = npt.NDArray[np.float32]


class _Views(NamedTuple):
    """Arrays of a level, as views whose single numbers Python reads faster.

    Attributes:
        tokens: Last token of each n-gram, (E,).
        weights: Weight of each n-gram, (E,), float32.
        begins: Index of the first n-gram of each context.
        backoffs: Backoff of each context.
    """

    tokens: memoryview
    weights: memoryview
    begins: memoryview
    backoffs: memoryview

    @classmethod
    def of(cls, level: Level) -> "_Views":
        """Return the views of a level."""
        return cls(level.tokens.data, level.weights.astype(np.float32).data, level.begins.data, level.backoffs.data)

    def find(self, context: int, token: int) -> int:
        """Return the index of an n-gram; `NOT_FOUND` if it is missing."""
        if context < 0:
            return NOT_FOUND
        end = self.begins[context + 1]
        index = bisect_left(self.tokens, token, self.begins[context], end)
        return index if index < end and self.tokens[index] == token else NOT_FOUND


class SequenceReader:
    """Distributions after single sequences.

    Args:
        model: The model.
    """

    def __init__(self, model: NGram) -> None:
        self._model = model
        self._views = [_Views.of(level) for level in model.levels]
        self._cache: dict[tuple[int, ...], Probs] = {}

    def advance(self, contexts: Sequence[int], token: int) -> list[int]:
        """Return the state after one more token.

        Args:
            contexts: State of the sequence, (N - 1,), as `NGram.start` describes it.
            token: The token.
        """
        if not contexts:
            return []
        longer = zip(self._views, contexts[:-1], strict=False)  # the highest order is the context of nothing
        return [token, *(views.find(context, token) for views, context in longer)]

    def probs(self, contexts: Sequence[int]) -> Probs:
        """Return the probabilities of the next token, (V,), float32, as a new array.

        Args:
            contexts: State of the sequence, (N - 1,).
        """
        return self._add(contexts, CACHED_LEVELS, self._cached(tuple(contexts[:CACHED_LEVELS])))

    def _cached(self, contexts: tuple[int, ...]) -> Probs:
        """Return the probabilities after the latest tokens alone."""
        if not contexts:
            return self._model.unigrams
        probs = self._cache.get(contexts)
        if probs is None:
            probs = self._add(contexts, len(contexts) - 1, self._cached(contexts[:-1]))
            if (len(self._cache) + 1) * len(probs) > MAX_CACHED_NUMBERS:
                self._cache.clear()
            self._cache[contexts] = probs
        return probs

    def _add(self, contexts: Sequence[int], first: int, lower: Probs) -> Probs:
        """Interpolate the probabilities after short contexts with the weights of longer ones.

        Args:
            contexts: State of the sequence.
            first: Index of the first of the longer contexts.
            lower: Probabilities after the short contexts, (V,).
        """
        factor, found = 1.0, []
        for place in range(len(contexts) - 1, first - 1, -1):
            views, context = self._views[place], contexts[place]
            if context >= 0 and (begin := views.begins[context]) < (end := views.begins[context + 1]):
                found.append((views, begin, end, factor))
                factor *= views.backoffs[context]
        probs: Probs = lower * np.float32(factor)
        numbers: Any = probs.data  # a view for which mypy knows only integers
        for views, begin, end, weight in found:
            if end - begin <= MAX_SINGLE_NUMBERS:
                for index in range(begin, end):
                    numbers[views.tokens[index]] += views.weights[index] * weight
            else:
                tokens = np.asarray(views.tokens[begin:end])
                probs[tokens] += np.asarray(views.weights[begin:end]) * np.float32(weight)
        return probs


class NGramState:
    """State of sequences that are read in parallel.

    Args:
        model: The model.
        single: Reader of single sequences with the model.
        sequences: Token ids that have been read, of B sequences.

    Attributes:
        rows: Number of sequences, B.
    """

    def __init__(self, model: NGram, single: SequenceReader, sequences: Sequence[npt.NDArray[Any]]) -> None:
        self._model = model
        self._single = single
        self._arrange(self._after(sequences))

    def _arrange(self, contexts: Indices) -> None:
        """Keep the contexts of all sequences, (N - 1, B), or of each of a few as a list."""
        self.rows: int = contexts.shape[1]
        self._contexts: Indices | None = contexts if self.rows > MAX_SINGLE_ROWS else None
        self._lists: list[list[int]] = [] if self.rows > MAX_SINGLE_ROWS else contexts.T.tolist()

    def _all(self) -> Indices:
        """Return the contexts of all sequences, (N - 1, B)."""
        if self._contexts is not None:
            return self._contexts
        return np.array(self._lists, dtype=np.intp).reshape(self.rows, -1).T

    def _after(self, sequences: Sequence[npt.NDArray[Any]]) -> Indices:
        """Return the state after sequences, (N - 1, B). Only their last N - 1 tokens matter."""
        state = self._model.start(len(sequences))
        for age in range(self._model.order - 1, 0, -1):
            rows = [row for row, ids in enumerate(sequences) if len(ids) >= age]
            if rows:
                state[:, rows] = self._model.advance(state[:, rows], np.array([sequences[row][-age] for row in rows]))
        return state

    def probs(self) -> Probs:
        """Return the probabilities of the next token, (B, V), float32, as a new array."""
        if self._contexts is not None:
            return self._model.probs(self._contexts)
        if self.rows == 1:
            return self._single.probs(self._lists[0])[None]
        return np.stack([self._single.probs(contexts) for contexts in self._lists])

    def advance(self, ids: npt.NDArray[Any]) -> None:
        """Read one token of each sequence, (B,), integers."""
        if self._contexts is None:
            advance = self._single.advance
            self._lists = [advance(contexts, token) for contexts, token in zip(self._lists, ids.tolist(), strict=True)]
        else:
            self._contexts = self._model.advance(self._contexts, ids)

    def select(self, rows: npt.NDArray[Any]) -> None:
        """Continue with a selection of the sequences, which may repeat."""
        self._arrange(self._all()[:, rows])

    def restart(self, rows: Sequence[int], ids: npt.NDArray[Any]) -> None:
        """Let some sequences start anew, after the tokens `ids`."""
        contexts = self._all()
        contexts[:, rows] = self._after([ids])
        self._arrange(contexts)
