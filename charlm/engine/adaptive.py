"""Adaptive part of a model: counts of the text that it has read so far in a document.

The probability of token w after the history h is interpolated with its relative frequency after each suffix of h that
has occurred before in the document, from the shortest context length to the longest:

    p_0(w) = probability by the static model,    p_k(w) = (1 - g) p_{k-1}(w) + g count(h_k w) / count(h_k)

A context that has not occurred leaves the probability as it is. The gain g is a constant that is fitted when the model
is trained. It depends on the context length, on the number of occurrences of the context, and on the number of
different tokens that have followed it: a context that was followed ten times by the same token deserves more trust than
one that was seen once. Every p_k sums to 1 if p_0 does.

Each token is predicted before it is counted. The model itself does not change.

Shapes: T number of tokens, V vocabulary, K number of context lengths.

Source:
    Jelinek and Mercer, Interpolated estimation of Markov source parameters from sparse data, 1980, for the
    interpolation; Kuhn and De Mori, A cache-based natural language model for speech recognition, 1990, for the counts
    of the document; Cleary and Witten, Data compression using adaptive coding and partial string matching, 1984, for
    confidence from the number of different followers.
"""

import copy
import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from charlm.engine.adaptive_defaults import CHARACTER_GAINS, CHARACTER_LENGTHS, WORD_GAINS, WORD_LENGTHS

COUNT_CLASSES = 8
"""Number of classes of the occurrences of a context: 1, 2 to 3, 4 to 7, ..., 128 or more."""

FOLLOWER_CLASSES = 4
"""Number of classes of the different followers of a context: 1, 2, 3, and 4 or more."""

MAX_CONTEXT_LENGTH = 32
"""Maximum number of tokens of a context."""

MAX_CONTEXT_LENGTHS = 8
"""Maximum number of context lengths, K."""

MAX_CONTEXTS = 2**20
"""Maximum number of contexts that a memory holds. They take about 100 MB for characters, and up to 200 MB for words."""

TOTAL = -1
"""Key of the number of occurrences of a context, in the dictionary of its followers."""

Node = int | dict[int, int]
"""Followers of a context. If there is only one, it is (count - 1) * V + token; otherwise the count of each token, and
their sum as `TOTAL`, which is the first key."""

Table = dict[int, Node]
"""Contexts of one length, with their followers."""

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Adaptation:
    """Constants of the adaptive part.

    Attributes:
        context_lengths: Numbers of tokens of the contexts, K in ascending order.
        gains: Gain of each context length, class of occurrences and class of followers,
            (K, `COUNT_CLASSES`, `FOLLOWER_CLASSES`), float32, from 0 to below 1.

    Raises:
        ValueError: If they are out of range. They may come from a damaged file.
    """

    context_lengths: tuple[int, ...]
    gains: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        lengths = self.context_lengths
        ascending = all(shorter < longer for shorter, longer in itertools.pairwise(lengths))
        if not 1 <= len(lengths) <= MAX_CONTEXT_LENGTHS or not ascending:
            raise ValueError(f"{len(lengths)} context lengths, not 1 to {MAX_CONTEXT_LENGTHS} in ascending order")
        if not 0 <= lengths[0] <= lengths[-1] <= MAX_CONTEXT_LENGTH:
            raise ValueError(f"a context length is not from 0 to {MAX_CONTEXT_LENGTH}")
        shape = (len(lengths), COUNT_CLASSES, FOLLOWER_CLASSES)
        if self.gains.shape != shape or self.gains.dtype.kind != "f":
            raise ValueError(f"gains are {self.gains.dtype} {self.gains.shape} instead of floats of shape {shape}")
        # NaN fails every comparison, therefore the condition is negated.
        if not ((self.gains >= 0) & (self.gains < 1)).all():
            raise ValueError("a gain is not a number from 0 to below 1")

    @classmethod
    def from_tensors(cls, context_lengths: Sequence[int], tensors: Mapping[str, npt.NDArray[Any]]) -> "Adaptation":
        """Return the constants of a model file, which may be untrusted.

        Args:
            context_lengths: The context lengths.
            tensors: The array `gains`.

        Raises:
            ValueError: If they are damaged.
        """
        if tensors.keys() != {"gains"}:
            raise ValueError(f"the arrays {', '.join(sorted(tensors))[:200]} instead of gains")
        return cls(tuple(context_lengths), tensors["gains"])

    @classmethod
    def default(cls, tokenizer_kind: str) -> "Adaptation":
        """Return the constants for a model that was trained without them.

        Args:
            tokenizer_kind: `char` or `word`.
        """
        is_word = tokenizer_kind == "word"
        gains = np.array(WORD_GAINS if is_word else CHARACTER_GAINS, dtype=np.float32)
        return cls(WORD_LENGTHS if is_word else CHARACTER_LENGTHS, gains)


class Memory:
    """Counts of the text that was read so far, for each context length.

    A memory is bounded. When it has `max_contexts` contexts, it forgets everything except the last
    `max_contexts / (2 K)` tokens, and continues to count from these.

    Args:
        adaptation: Context lengths and gains.
        vocab_size: V.
        start: Tokens before the text, which do not count; see `start_text`.
        max_contexts: Maximum number of contexts. It may be exceeded by one sixteenth.
    """

    def __init__(
        self, adaptation: Adaptation, vocab_size: int, start: Ids, *, max_contexts: int = MAX_CONTEXTS
    ) -> None:
        lengths = adaptation.context_lengths
        self._vocab_size = vocab_size
        self._max_contexts = max_contexts
        # A history is a number: the last tokens, plus 1 each. Before the first token, it is 0.
        self._bits = vocab_size.bit_length()
        self._masks = [(1 << self._bits * length) - 1 for length in lengths]
        self._gains = [_by_followers(gains) for gains in adaptation.gains]
        self._history = 0
        self._tables: list[Table] = [{} for _ in lengths]
        self._bases: list[Table] = [{} for _ in lengths]  # tables that forks share and do not change
        self._block = max(1, max_contexts // (16 * len(lengths)))
        self._num_read = 0
        self._recent: deque[int] = deque(maxlen=8 * self._block)
        self.start_text(start)

    @property
    def num_contexts(self) -> int:
        """Number of contexts. A context that has changed since a fork counts twice."""
        return sum(map(len, self._tables)) + sum(map(len, self._bases))

    def fork(self) -> "Memory":
        """Return a memory that continues this one. From now on, each of both changes independently.

        What was counted before the first fork is shared. Later forks copy what was counted since then.
        """
        if not any(self._bases):
            self._bases, self._tables = self._tables, [{} for _ in self._tables]
        forked = copy.copy(self)
        forked._recent = self._recent.copy()
        forked._tables = [
            {key: node if isinstance(node, int) else node.copy() for key, node in table.items()}
            for table in self._tables
        ]
        return forked

    def start_text(self, start: Ids) -> None:
        """Start another text of the same document: contexts do not extend across its start. The counts stay.

        Args:
            start: Tokens before the text, which do not count.
        """
        self._history = 0
        for token in start.tolist():
            self._history = (self._history << self._bits | token + 1) & self._masks[-1]

    def read(self, ids: Ids) -> tuple[Floats, Floats]:
        """Count tokens, after weighing the prediction of each by the tokens before it.

        Args:
            ids: Token ids, (T,), integers.

        Returns:
            Two numbers per token, `keep` and `add`, (T,), float64: its probability is keep * p + add, if p is that by
            the static model.
        """
        tokens = ids.tolist()
        keeps: list[float] = []
        adds: list[float] = []
        while len(keeps) < len(tokens):
            # Whether the memory is full is checked at fixed places, so that the result does not depend on the parts in
            # which a text arrives.
            until_check = self._block - self._num_read % self._block
            part = tokens[len(keeps) : len(keeps) + until_check]
            self._count(part, keeps, adds)
            self._recent.extend(part)
            self._num_read += len(part)
            if len(part) == until_check and self.num_contexts >= self._max_contexts:
                self._forget()
        return np.array(keeps), np.array(adds)

    def _forget(self) -> None:
        """Keep only the counts of the last tokens."""
        history, self._history = self._history, 0
        self._bases = [{} for _ in self._bases]
        self._tables = [{} for _ in self._tables]
        self._count(list(self._recent), [], [])
        self._history = history

    def _count(self, tokens: list[int], keeps: list[float], adds: list[float]) -> None:
        """Count tokens, and append the two numbers of each; see `read`. This loop is written for speed."""
        size, bits, history, longest = self._vocab_size, self._bits, self._history, self._masks[-1]
        levels = list(zip(self._tables, self._bases, self._masks, self._gains, strict=True))
        for token in tokens:
            keep, add, has_occurred = 1.0, 0.0, True
            for table, base, mask, gains in levels:
                key = history & mask
                node = table.get(key) if has_occurred else None
                if node is None and has_occurred:
                    node = base.get(key)
                    if isinstance(node, dict):
                        table[key] = node = node.copy()
                if node is None:
                    has_occurred = False  # neither has any longer context
                    table[key] = token
                    continue
                if isinstance(node, dict):
                    total, count = node[TOTAL], node.get(token, 0)
                    gain = gains[min(len(node) - 1, FOLLOWER_CLASSES)][total.bit_length()]
                    node[token] = count + 1
                    node[TOTAL] = total + 1
                else:
                    earlier, follower = divmod(node, size)
                    total = earlier + 1
                    gain = gains[1][total.bit_length()]
                    if follower == token:
                        count = total
                        table[key] = node + size
                    else:
                        count = 0
                        table[key] = {TOTAL: total + 1, follower: total, token: 1}
                keep *= 1 - gain
                add *= 1 - gain
                if count:
                    add += gain * count / total
            keeps.append(keep)
            adds.append(add)
            history = (history << bits | token + 1) & longest
        self._history = history

    def adapt(self, probs: npt.NDArray[np.floating[Any]]) -> None:
        """Change the probabilities of the next token by the static model, (V,), to those of the adaptive model."""
        for table, base, mask, gains in zip(self._tables, self._bases, self._masks, self._gains, strict=True):
            key = self._history & mask
            node = table.get(key)
            node = base.get(key) if node is None else node
            if node is None:
                return
            if isinstance(node, int):
                count, follower = divmod(node, self._vocab_size)
                gain = gains[1][(count + 1).bit_length()]
                probs *= 1 - gain
                probs[follower] += gain
            else:
                total, *counts = node.values()
                gain = gains[min(len(counts), FOLLOWER_CLASSES)][total.bit_length()]
                probs *= 1 - gain
                followers = np.fromiter(node, dtype=np.intp, count=len(node))[1:]
                probs[followers] += np.array(counts) * (gain / total)


def _by_followers(gains: npt.NDArray[np.float32]) -> list[list[float]]:
    """Return the gains of one context length by number of followers, then by number of bits of the occurrences.

    Args:
        gains: Gains, (`COUNT_CLASSES`, `FOLLOWER_CLASSES`).
    """
    classes = [0, *range(COUNT_CLASSES), *[COUNT_CLASSES - 1] * (64 - COUNT_CLASSES)]
    return [[], *gains.T.astype(np.float64)[:, classes].tolist()]
