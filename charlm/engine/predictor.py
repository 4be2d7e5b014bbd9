"""Interface of everything that predicts the next token: a network, an n-gram model, a mixture of both.

Generation, search, scoring and export use nothing else of a model. A `Predictor` starts `Reader`s, which read several
sequences token by token and give the distribution of the next token of each. It also scores given tokens; there are
faster ways to do this than the distribution of every token.

Every text is read from the start of a line: its first token is that of `START`. A model has no memory before it.

Shapes: B sequences, T tokens of a sequence, V vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from charlm.engine.ngram import MIN_PROB
from charlm.engine.unknown import UnknownTokens
from charlm.text.tokenizer import Ids, Tokenizer

Array = npt.NDArray[np.float32]

START = "\n"
"""Text that a model reads first, from the zero state. Therefore, every text begins at the start of a line."""

MAX_BLOCK_NUMBERS = 2**22
"""Maximum number of logits or gate values that a thread holds at a time, for a text of any length."""


ONE = np.float32(1)


class TokenCosts(NamedTuple):
    """Costs of given tokens.

    Attributes:
        nats: Negative log-probability of each token in nats, float32.
        entropy_nats: Entropy of the distribution that predicted each token in nats, float32, of the same shape; None if
            it was not asked for.
    """

    nats: Array
    entropy_nats: Array | None = None


class Reader(ABC):
    """B sequences that are read in parallel."""

    @property
    @abstractmethod
    def rows(self) -> int:
        """Number of sequences, B."""

    @abstractmethod
    def logits(self) -> Array:
        """Return the unnormalised log-probabilities of the next token, (B, V), float32, as a new array."""

    def probs(self) -> Array:
        """Return the probabilities of the next token, (B, V), float32, as a new array."""
        probs, _ = softmax(self.logits())
        return probs

    @abstractmethod
    def advance(self, ids: npt.NDArray[np.integer[Any]]) -> None:
        """Read one token of each sequence.

        Args:
            ids: Token ids, (B,), integers.
        """

    @abstractmethod
    def select(self, rows: npt.NDArray[np.integer[Any]]) -> None:
        """Continue with a selection of the sequences. A sequence can be selected several times.

        Args:
            rows: Indices of the sequences to continue with, integers.
        """

    @abstractmethod
    def restart(self, rows: Sequence[int]) -> None:
        """Let some sequences start anew, as if they had read nothing but the token of `START`.

        Args:
            rows: Indices of these sequences.
        """


class TokenStream(ABC):
    """Text that is scored in parts, after the token of `START`."""

    @abstractmethod
    def score(self, ids: Ids) -> TokenCosts:
        """Return the costs of the next tokens, (T,), and read them.

        Args:
            ids: Token ids, (T,), integers.
        """


class Predictor(ABC):
    """Model that predicts the next token.

    A subclass must have `read`. It may replace the other methods by faster ones.

    Attributes:
        tokenizer: Tokenizer with the vocabulary.
        unknown_tokens: Costs of the unknown tokens of a text.
    """

    tokenizer: Tokenizer
    unknown_tokens: UnknownTokens

    @abstractmethod
    def read(self, sequences: Sequence[Ids]) -> Reader:
        """Read sequences from the zero state.

        Args:
            sequences: Token ids of B sequences, of any lengths from 1.
        """

    def score(
        self, sequences: Sequence[Ids], *, with_entropy: bool = False, stop: Callable[[], bool] = lambda: False
    ) -> TokenCosts:
        """Score a batch of B sequences of up to T + 1 tokens, each from the zero state.

        Several threads may call this at the same time.

        Args:
            sequences: Token ids, the longest sequence first. The first token of a sequence is read but not scored.
            with_entropy: Whether to compute entropies.
            stop: Returns True if the result is no longer needed.

        Returns:
            The costs, (B, T), 0 after the end of a sequence; incomplete after `stop`.
        """
        targets, num_active = stack_targets(sequences)
        costs = empty_costs(targets.shape, with_entropy=with_entropy)
        probs = self.step_probs(sequences)
        for time, rows in enumerate(num_active):
            if stop():
                break
            fill_costs(costs, (time, slice(rows)), next(probs), targets[time, :rows])
        return TokenCosts(costs.nats.T, None if costs.entropy_nats is None else costs.entropy_nats.T)

    def step_probs(self, sequences: Sequence[Ids]) -> Iterator[Array]:
        """Yield the distributions that predict the tokens of sequences after their first, step by step.

        Args:
            sequences: Token ids of B sequences of up to T + 1 tokens, the longest first.

        Yields:
            For each of T steps, the distributions of the first sequences, which are those that have a token at this
            step, (rows, V), float32, as a new array.
        """
        targets, num_active = stack_targets(sequences)
        reader = self.read([ids[:1] for ids in sequences])
        for time, rows in enumerate(num_active):
            if rows < reader.rows:
                reader.select(np.arange(rows))
            if time:
                reader.advance(targets[time - 1, :rows])
            yield reader.probs()

    def start_stream(self, *, with_entropy: bool = False) -> TokenStream:
        """Start a text that is scored in parts.

        Args:
            with_entropy: Whether to compute entropies.
        """
        return _StepStream(self.read([self.tokenizer.encode(START)]), with_entropy=with_entropy)


class ProbsStream(TokenStream):
    """Text that is scored in parts with the distributions that predict its tokens.

    Args:
        block_tokens: Maximum number of tokens whose distributions are in memory at a time.
        with_entropy: Whether to compute entropies.
    """

    def __init__(self, block_tokens: int, *, with_entropy: bool) -> None:
        self._block_tokens = max(1, block_tokens)
        self._with_entropy = with_entropy

    @abstractmethod
    def probs(self, ids: Ids) -> Array:
        """Return the distributions that predict the next tokens, (T, V), float32, and read the tokens, (T,).

        Args:
            ids: Token ids, (T,), integers, at least one.
        """

    def score(self, ids: Ids) -> TokenCosts:
        """Return the costs of the next tokens, (T,), and read them."""
        costs = empty_costs(ids.shape, with_entropy=self._with_entropy)
        for begin in range(0, len(ids), self._block_tokens):
            block = slice(begin, begin + self._block_tokens)
            fill_costs(costs, block, self.probs(ids[block]), ids[block])
        return costs


class _StepStream(ProbsStream):
    """Text that is scored in parts, token by token.

    Args:
        reader: Reader of one sequence.
        with_entropy: Whether to compute entropies.
    """

    def __init__(self, reader: Reader, *, with_entropy: bool) -> None:
        super().__init__(1, with_entropy=with_entropy)
        self._reader = reader

    def probs(self, ids: Ids) -> Array:
        """Return the distribution that predicts the next token, (1, V), and read the token; see `ProbsStream.probs`."""
        probs = self._reader.probs()
        self._reader.advance(ids)
        return probs


def empty_costs(shape: tuple[int, ...], *, with_entropy: bool) -> TokenCosts:
    """Return arrays of zeros for costs."""
    zeros = np.zeros(shape, dtype=np.float32)
    return TokenCosts(zeros, np.zeros_like(zeros) if with_entropy else None)


def fill_costs(
    costs: TokenCosts,
    place: Any,  # noqa: ANN401 - an index of NumPy
    probs: Array,
    targets: npt.NDArray[np.integer[Any]],
) -> None:
    """Write the costs of targets, (N,), to a place of costs.

    Args:
        costs: The costs.
        place: Index of the N costs.
        probs: Distributions that predict the targets, (N, V), float32.
        targets: Token ids, (N,).
    """
    costs.nats[place] = -log_of_probs(probs[np.arange(len(targets)), targets])
    if costs.entropy_nats is not None:
        costs.entropy_nats[place] = -np.einsum("nv,nv->n", probs, log_of_probs(probs.copy()))


def stack_targets(sequences: Sequence[Ids]) -> tuple[npt.NDArray[np.intp], list[int]]:
    """Return the tokens of sequences that are scored, step by step.

    Args:
        sequences: Token ids of B sequences of up to T + 1 tokens, the longest first.

    Returns:
        All tokens except the first of each sequence, (T, B), padded with 0; and for each step the number of sequences
        that have a token.
    """
    targets = np.zeros((len(sequences[0]) - 1, len(sequences)), dtype=np.intp)
    for column, ids in enumerate(sequences):
        targets[: len(ids) - 1, column] = ids[1:]
    lengths = np.array([len(ids) - 1 for ids in sequences])
    return targets, [int(np.count_nonzero(lengths > time)) for time in range(len(targets))]


def softmax(logits: Array, weight: np.float32 = ONE) -> tuple[Array, Array]:
    """Return the probabilities for logits.

    Args:
        logits: Unnormalised log-probabilities, (B, V). They are overwritten.
        weight: Factor of the probabilities.

    Returns:
        The probabilities times `weight`, (B, V), and log(sum(exp(logits))), (B, 1); both float32.
    """
    if len(logits) == 1:  # the same operations with single numbers, which are faster
        (row,) = logits
        largest = np.maximum.reduce(row)
        row -= largest
        np.exp(row, out=row)
        total = np.add.reduce(row)
        row *= weight / total
        return logits, np.array([[largest + np.log(total)]])
    highest = np.maximum.reduce(logits, axis=-1, keepdims=True)
    logits -= highest
    np.exp(logits, out=logits)
    totals = np.add.reduce(logits, axis=-1, keepdims=True)
    logits *= weight / totals
    highest += np.log(totals)
    return logits, highest


def log_of_probs(probs: Array) -> Array:
    """Return the logarithms of probabilities, which are overwritten; see `MIN_PROB`."""
    np.maximum(probs, MIN_PROB, out=probs)
    return np.log(probs, out=probs)


def token_nats(logits: Array, targets: npt.NDArray[np.integer[Any]], *, entropy_out: Array | None = None) -> Array:
    """Return the negative log-probability of each target token in nats, (N,), float32.

    Args:
        logits: Unnormalised log-probabilities, (N, V), float32. They are overwritten.
        targets: Token ids, (N,).
        entropy_out: Array that receives the entropies of the N distributions in nats, (N,), float32, or None.
    """
    logits -= logits.max(axis=-1, keepdims=True)
    target_logits = logits[np.arange(len(targets)), targets]
    if entropy_out is None:
        totals = np.exp(logits, out=logits).sum(axis=-1)
    else:
        # With e = exp(logits) and Z = sum(e), the entropy is -sum(e / Z * log(e / Z)) = log(Z) - sum(e * logits) / Z.
        weights = np.exp(logits)
        totals = weights.sum(axis=-1)
        entropy_out[...] = np.log(totals) - np.einsum("nv,nv->n", weights, logits) / totals
    nats: Array = np.log(totals) - target_logits
    return nats
