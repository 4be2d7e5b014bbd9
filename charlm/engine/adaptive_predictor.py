"""Predictors and scorers that learn from the text that they read; see `charlm.engine.adaptive`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from charlm.engine.adaptive import Adaptation, Floats, Memory
from charlm.engine.checkpoint import Checkpoint
from charlm.engine.predictor import START, Array, Predictor, Reader, TokenCosts, TokenStream, log_of_probs, softmax
from charlm.engine.scorer import Scorer, StreamScorer
from charlm.engine.scores import TokenScores
from charlm.text.tokenizer import Ids


def adaptation_of(checkpoint: Checkpoint) -> Adaptation:
    """Return the constants of the adaptive part of a model file, or the default ones if it has none."""
    return checkpoint.adaptation or Adaptation.default(checkpoint.tokenizer.kind)


def adaptive_nats(nats: Array, weights: tuple[Floats, Floats]) -> Array:
    """Return the negative log-probabilities of tokens by the adaptive model, (T,), float32.

    Args:
        nats: Those by the static model, (T,), float32.
        weights: The two numbers of each token that `Memory.read` returns.
    """
    keep, add = weights
    with np.errstate(divide="ignore"):  # log(0) is -inf, which is a summand of 0
        log_probs = np.logaddexp(np.log(keep) - nats, np.log(add))
    adapted: Array = (-log_probs).astype(np.float32)
    return adapted


class AdaptivePredictor(Predictor):
    """Predictor that counts the tokens of each text that it reads.

    Each sequence is a document of its own, which begins with the texts that were learned before; see `learn`.

    Args:
        static: The predictor whose probabilities are adapted.
        adaptation: Constants of the adaptive part.

    Attributes:
        static: As given.
        tokenizer: Tokenizer of the static predictor.
        unknown_tokens: Costs of unknown tokens by the static predictor.
    """

    def __init__(self, static: Predictor, adaptation: Adaptation) -> None:
        self.static = static
        self.tokenizer = static.tokenizer
        self.unknown_tokens = static.unknown_tokens
        self._adaptation = adaptation
        self.forget()

    def learn(self, text: str) -> None:
        """Count a text, as the beginning of all documents that are read later."""
        self._learned.start_text(self.tokenizer.encode(START))
        self._learned.read(self.tokenizer.encode(START + text)[1:])

    def forget(self) -> None:
        """Forget the texts that were learned."""
        self._learned = Memory(self._adaptation, self.tokenizer.vocab_size, self.tokenizer.encode(START))

    def read(self, sequences: Sequence[Ids]) -> "AdaptiveReader":
        """Read sequences; see `Predictor.read`."""
        memories = [self._memory(ids[:1]) for ids in sequences]
        for memory, ids in zip(memories, sequences, strict=True):
            memory.read(ids[1:])
        return AdaptiveReader(self.static.read(sequences), memories, self.tokenizer.encode(START))

    def score(
        self, sequences: Sequence[Ids], *, with_entropy: bool = False, stop: Callable[[], bool] = lambda: False
    ) -> TokenCosts:
        """Score a batch of sequences; see `Predictor.score`."""
        if with_entropy:
            return super().score(sequences, with_entropy=True, stop=stop)
        nats, _ = self.static.score(sequences, stop=stop)
        for row, ids in zip(nats, sequences, strict=True):
            row[: len(ids) - 1] = adaptive_nats(row[: len(ids) - 1], self._memory(ids[:1]).read(ids[1:]))
        return TokenCosts(nats)

    def start_stream(self, *, with_entropy: bool = False) -> TokenStream:
        """Start a text that is scored in parts; see `Predictor.start_stream`."""
        if with_entropy:
            return super().start_stream(with_entropy=True)
        return AdaptiveStream(self.static.start_stream(), self._memory(self.tokenizer.encode(START)))

    def _memory(self, start: Ids) -> Memory:
        """Return the memory of a document."""
        memory = self._learned.fork()
        memory.start_text(start)
        return memory


class AdaptiveReader(Reader):
    """Sequences that are read in parallel, each with a memory of its own.

    Args:
        static: Reader of the sequences by the static predictor.
        memories: Memory of each sequence.
        start: Ids of `START`.
    """

    def __init__(self, static: Reader, memories: Sequence[Memory], start: Ids) -> None:
        self._static = static
        self._memories = list(memories)
        self._start = start

    @property
    def rows(self) -> int:
        """Number of sequences, B."""
        return self._static.rows

    def logits(self) -> Array:
        """Return the unnormalised log-probabilities of the next token, (B, V), float32.

        The sum of their exponentials is that of the static predictor, as for `MixtureReader`.
        """
        probs, log_total = softmax(self._static.logits())
        logits = log_of_probs(self._adapt(probs))
        logits += log_total
        return logits

    def probs(self) -> Array:
        """Return the probabilities of the next token, (B, V), float32."""
        return self._adapt(self._static.probs())

    def _adapt(self, probs: Array) -> Array:
        """Change the probabilities by the static predictor, (B, V), in place."""
        for row, memory in zip(probs, self._memories, strict=True):
            memory.adapt(row)
        return probs

    def advance(self, ids: npt.NDArray[np.integer[Any]]) -> None:
        """Read one token of each sequence; see `Reader.advance`."""
        self._static.advance(ids)
        for row, memory in enumerate(self._memories):
            memory.read(ids[row : row + 1])

    def select(self, rows: npt.NDArray[np.integer[Any]]) -> None:
        """Continue with a selection of the sequences; see `Reader.select`."""
        self._static.select(rows)
        selected = rows.tolist()
        is_used_before = [row in selected[:index] for index, row in enumerate(selected)]
        memories = [self._memories[row] for row in selected]
        self._memories = [
            memory.fork() if is_used else memory for memory, is_used in zip(memories, is_used_before, strict=True)
        ]

    def restart(self, rows: Sequence[int]) -> None:
        """Let some sequences start anew. Their memories stay: they are further texts of the same document."""
        self._static.restart(rows)
        for row in rows:
            self._memories[row].start_text(self._start)


class AdaptiveStream(TokenStream):
    """Text that is scored in parts.

    Args:
        static: The text for the static predictor.
        memory: Memory of the document.
    """

    def __init__(self, static: TokenStream, memory: Memory) -> None:
        self._static = static
        self._memory = memory

    def score(self, ids: Ids) -> TokenCosts:
        """Return the costs of the next tokens, (T,), and read them."""
        return TokenCosts(adaptive_nats(self._static.score(ids).nats, self._memory.read(ids)))


class AdaptiveScorer:
    """Scorer of the lines of documents: each line is scored after all lines before it were counted.

    A line starts from the zero state and after one newline, as without adaptation. Only the counts are carried on.

    Args:
        static: The scorer whose probabilities are adapted: of one model, or of a mixture of models.
        adaptation: Constants of the adaptive part.

    Attributes:
        tokenizer: As in `Scorer`.
        unknown_words: As in `Scorer`.
        spells_unknown_tokens: As in `Scorer`.
    """

    def __init__(self, static: Scorer, adaptation: Adaptation) -> None:
        self._static = static
        self._adaptation = adaptation
        self.tokenizer = static.tokenizer
        self.unknown_words = static.unknown_words
        self.spells_unknown_tokens = static.spells_unknown_tokens
        self._start = self.tokenizer.encode(START)
        self.start_document()

    def start_document(self) -> None:
        """Forget everything that was read."""
        self._memory = Memory(self._adaptation, self.tokenizer.vocab_size, self._start)

    def score_lines(self, lines: Sequence[str]) -> list[TokenScores]:
        """Score lines in their order, and count each of them after it was scored.

        Args:
            lines: Lines that are not empty, each with its newline if it has one.
        """
        adapted = []
        for scores in self._static.score_lines(lines):
            self._memory.start_text(self._start)
            adapted.append(_adapt_scores(scores, self._memory))
        return adapted

    def start_stream(self) -> "AdaptiveStreamScorer":
        """Start a text of the same document that arrives in parts."""
        self._memory.start_text(self._start)
        return AdaptiveStreamScorer(self._static.start_stream(), self._memory)


class AdaptiveStreamScorer:
    """Scorer of one text that arrives in parts.

    Args:
        static: The scorer whose probabilities are adapted.
        memory: Memory of the document.
    """

    def __init__(self, static: StreamScorer, memory: Memory) -> None:
        self._static = static
        self._memory = memory

    def feed(self, text: str) -> TokenScores:
        """Score the next part of the text."""
        return _adapt_scores(self._static.feed(text), self._memory)


def _adapt_scores(scores: TokenScores, memory: Memory) -> TokenScores:
    """Return the scores of a text by the adaptive model, without entropies, and count its tokens."""
    nats = adaptive_nats(scores.token_nats, memory.read(scores.ids))
    if scores.spelling_nats is not None:
        nats += scores.spelling_nats
    return replace(scores, nats=nats, entropy_nats=None)
