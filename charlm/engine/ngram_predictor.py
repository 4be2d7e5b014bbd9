"""N-gram model of a model file as a predictor."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from charlm.engine.ngram import NGram
from charlm.engine.ngram_state import NGramState, SequenceReader
from charlm.engine.predictor import (
    MAX_BLOCK_NUMBERS,
    START,
    Array,
    Predictor,
    ProbsStream,
    Reader,
    TokenCosts,
    log_of_probs,
    stack_targets,
)
from charlm.engine.unknown import UnknownTokens
from charlm.text.tokenizer import Ids, Tokenizer

NUMBERS_PER_TOKEN = 16
"""Number of numbers that scoring holds for each token."""

MAX_STEP_NUMBERS = 2**18
"""Maximum number of probabilities of several steps that are computed at a time."""

NUMBERS_PER_PROB = 8
"""Number of numbers that computing a distribution holds for each of its probabilities."""


class NGramPredictor(Predictor):
    """N-gram model with a tokenizer.

    Args:
        ngram: Model of the ids.
        tokenizer: Tokenizer with the vocabulary.
        unknown_tokens: Costs of the unknown tokens of a text.

    Attributes:
        ngram: As given.
        tokenizer: As given.
        unknown_tokens: As given.
    """

    def __init__(self, ngram: NGram, tokenizer: Tokenizer, unknown_tokens: UnknownTokens) -> None:
        self.ngram = ngram
        self.tokenizer = tokenizer
        self.unknown_tokens = unknown_tokens
        self._single: SequenceReader | None = None

    def read(self, sequences: Sequence[Ids]) -> "NGramReader":
        """Read sequences; see `Predictor.read`."""
        if self._single is None:  # not needed for scoring
            self._single = SequenceReader(self.ngram)
        return NGramReader(NGramState(self.ngram, self._single, sequences), self.tokenizer.encode(START))

    def score(
        self, sequences: Sequence[Ids], *, with_entropy: bool = False, stop: Callable[[], bool] = lambda: False
    ) -> TokenCosts:
        """Score a batch of sequences; see `Predictor.score`."""
        if with_entropy:
            return super().score(sequences, with_entropy=True, stop=stop)
        lengths, starts = _lengths_and_starts(sequences)
        costs = self.ngram.nats(np.concatenate(sequences), starts)
        nats: Array = np.zeros((len(sequences), lengths[0]), dtype=np.float32)
        nats[np.arange(lengths[0]) < lengths[:, None]] = costs
        return TokenCosts(nats[:, 1:])

    def step_probs(self, sequences: Sequence[Ids]) -> Iterator[Array]:
        """Yield distributions step by step; see `Predictor.step_probs`.

        They are computed for many steps at a time, which is faster.
        """
        _, num_active = stack_targets(sequences)
        _, starts = _lengths_and_starts(sequences)
        states = self.ngram.states(np.concatenate(sequences), starts)
        block_steps = max(1, MAX_STEP_NUMBERS // (len(sequences) * self.ngram.vocab_size))
        for begin in range(0, len(num_active), block_steps):
            steps = num_active[begin : begin + block_steps]
            places = [starts[:rows] + time for time, rows in enumerate(steps, start=begin + 1)]
            yield from np.split(self.ngram.probs(states[:, np.concatenate(places)]), np.cumsum(steps[:-1]))

    def start_stream(self, *, with_entropy: bool = False) -> "NGramStream":
        """Start a text that is scored in parts; see `Predictor.start_stream`."""
        return NGramStream(self.ngram, self.tokenizer.encode(START), with_entropy=with_entropy)


def _lengths_and_starts(sequences: Sequence[Ids]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the length of each sequence, and the index of its first token if they are concatenated, (B,) each."""
    lengths = np.array([len(ids) for ids in sequences], dtype=np.intp)
    return lengths, np.cumsum(lengths) - lengths


class NGramReader(Reader):
    """Sequences that an n-gram model reads in parallel.

    Args:
        state: State of the sequences.
        start: Ids of `START`.
    """

    def __init__(self, state: NGramState, start: Ids) -> None:
        self._state = state
        self._start = start

    @property
    def rows(self) -> int:
        """Number of sequences, B."""
        return self._state.rows

    def logits(self) -> Array:
        """Return the log-probabilities of the next token, (B, V), float32."""
        return log_of_probs(self._state.probs())

    def probs(self) -> Array:
        """Return the probabilities of the next token, (B, V), float32."""
        return self._state.probs()

    def advance(self, ids: npt.NDArray[np.integer[Any]]) -> None:
        """Read one token of each sequence; see `Reader.advance`."""
        self._state.advance(ids)

    def select(self, rows: npt.NDArray[np.integer[Any]]) -> None:
        """Continue with a selection of the sequences; see `Reader.select`."""
        self._state.select(rows)

    def restart(self, rows: Sequence[int]) -> None:
        """Let some sequences start anew; see `Reader.restart`."""
        self._state.restart(rows, self._start)


class NGramStream(ProbsStream):
    """Text that an n-gram model scores in parts.

    Args:
        ngram: The model.
        start: Ids before the text.
        with_entropy: Whether to compute entropies.
    """

    def __init__(self, ngram: NGram, start: Ids, *, with_entropy: bool = False) -> None:
        numbers = NUMBERS_PER_TOKEN + with_entropy * NUMBERS_PER_PROB * ngram.vocab_size
        super().__init__(MAX_BLOCK_NUMBERS // numbers, with_entropy=with_entropy)
        self._ngram = ngram
        self._read = start

    def score(self, ids: Ids) -> TokenCosts:
        """Return the costs of the next tokens, (T,), and read them."""
        if self._with_entropy:
            return super().score(ids)
        nats: Array = np.empty(len(ids), dtype=np.float32)
        for begin in range(0, len(ids), self._block_tokens):
            block = ids[begin : begin + self._block_tokens]
            nats[begin : begin + len(block)] = self._ngram.nats(self._text(block))[-len(block) :]
        return TokenCosts(nats)

    def probs(self, ids: Ids) -> Array:
        """Return the distributions that predict the next tokens, and read these; see `ProbsStream.probs`."""
        return self._ngram.probs(self._ngram.states(self._text(ids))[:, -len(ids) :])

    def _text(self, ids: Ids) -> Ids:
        """Return tokens after those that are their contexts, and read them."""
        text = np.concatenate([self._read, ids])
        self._read = text[-max(1, self._ngram.order - 1) :]
        return text
