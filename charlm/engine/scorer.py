"""Scoring of text with a model or a mixture of models.

The scoring rule: a text, or a line that is scored by itself, starts from the zero state after one newline token. Every
token counts, including the newline at the end of a line if the input has it. An unknown token costs what the model
assigns to its unknown token, and in addition the spelling of the word or character that it stands for. Unknown tokens
are counted. Characters and bytes are those of the original text, so that the bits per character of models with
different tokenizers can be compared.
"""

import functools
import itertools
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from charlm.config import MAX_BATCH_LINES
from charlm.engine.rnn import START, Array, RecurrentNetwork
from charlm.engine.scores import Score, TokenScores
from charlm.engine.unknown import WordCounts
from charlm.text.joint_vocabulary import join_vocabularies
from charlm.text.line_ends import fold_line_ends
from charlm.text.tokenizer import UNKNOWN_ID, Ids, Tokenizer

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

MAX_BLOCK_NUMBERS = 2**22
"""Maximum number of logits or gate values that a thread holds at a time, for a text of any length."""


class StreamScorer(Protocol):
    """Scorer of one text that arrives in parts."""

    def feed(self, text: str) -> TokenScores:
        """Score the next part of the text."""
        ...


class Scorer(Protocol):
    """Scorer of lines and of texts: one model, or a mixture of models.

    Attributes:
        tokenizer: The tokenizer that splits the text.
        unknown_words: Words or characters that were unknown so far, with the number of times that each occurred.
        spells_unknown_tokens: Whether the spelling of unknown tokens has a cost.
    """

    tokenizer: Tokenizer
    unknown_words: WordCounts
    spells_unknown_tokens: bool

    def score_lines(self, lines: Sequence[str]) -> list[TokenScores]:
        """Score lines independently of each other.

        Args:
            lines: Lines that are not empty, each with its newline if it has one.
        """
        ...

    def start_stream(self) -> StreamScorer:
        """Start a text that arrives in parts. Only one part needs to fit into memory."""
        ...


class ModelScorer:
    """Scorer that uses one model.

    Args:
        network: The model.
        threads: Number of threads. Each thread scores batches of lines of its own: NumPy releases Python's global lock
            in its loops, and independent batches are faster than matrix products that threads share.
        with_entropy: Whether to compute the entropy of each prediction.

    Attributes:
        tokenizer: The model's tokenizer.
        unknown_words: As in `Scorer`.
        spells_unknown_tokens: As in `Scorer`.
    """

    def __init__(self, network: RecurrentNetwork, threads: int = 1, *, with_entropy: bool = False) -> None:
        self._network = network
        self._threads = threads
        self._with_entropy = with_entropy
        self.tokenizer = network.tokenizer
        self.unknown_words = network.unknown_tokens.counts
        self.spells_unknown_tokens = network.unknown_tokens.are_spelt

    def score_lines(self, lines: Sequence[str]) -> list[TokenScores]:
        """Score lines independently of each other.

        Lines of similar length form a batch, so that little padding is needed.

        Args:
            lines: Lines that are not empty, each with its newline if it has one.

        Returns:
            The scores of the lines, in the order of the lines.
        """
        encoded = [self.tokenizer.encode(START + line) for line in lines]
        longest_first = sorted(range(len(lines)), key=lambda index: -len(encoded[index]))
        lines_per_thread = -(-len(lines) // self._threads)
        size = max(1, min(MAX_BATCH_LINES, lines_per_thread, MAX_BLOCK_NUMBERS // self.tokenizer.vocab_size))
        batches = [longest_first[begin : begin + size] for begin in range(0, len(lines), size)]
        results = self._score_batches([[encoded[index] for index in batch] for batch in batches])
        scores: dict[int, TokenScores] = {}
        for batch, (nats, entropy) in zip(batches, results, strict=True):
            for row, index in enumerate(batch):
                ids = encoded[index][1:]
                row_entropy = None if entropy is None else entropy[row, : len(ids)]
                scores[index] = TokenScores(lines[index], ids, nats[row, : len(ids)], entropy_nats=row_entropy)
        return self._network.unknown_tokens.add_spelling([scores[index] for index in range(len(lines))])

    def start_stream(self) -> "ModelStreamScorer":
        """Start a text that arrives in parts. Only one part needs to fit into memory."""
        return ModelStreamScorer(self._network, with_entropy=self._with_entropy)

    def _score_batches(self, batches: Sequence[Sequence[Ids]]) -> Iterator[tuple[Array, Array | None]]:
        """Yield the results of `_score_batch`, in the order of the batches."""
        if self._threads == 1 or len(batches) == 1:
            yield from map(self._score_batch, batches)
            return
        ended = threading.Event()
        try:
            yield from self._pool.map(functools.partial(self._score_batch, stop=ended.is_set), batches)
        finally:
            # Python waits for running threads before it exits, for example after Ctrl-C.
            ended.set()

    @functools.cached_property
    def _pool(self) -> "ThreadPoolExecutor":
        from concurrent.futures import ThreadPoolExecutor  # not needed for a single batch

        return ThreadPoolExecutor(self._threads)

    def _score_batch(
        self, sequences: Sequence[Ids], stop: Callable[[], bool] = lambda: False
    ) -> tuple[Array, Array | None]:
        """Score a batch of B sequences of up to T + 1 tokens.

        Args:
            sequences: Token ids, the longest sequence first. The first token of a sequence is read but not scored.
            stop: Returns True if the result is no longer needed.

        Returns:
            Negative log-probabilities, and entropies of the predictions or None, in nats, (B, T), float32; incomplete
            after `stop`.
        """
        targets = np.zeros((len(sequences[0]) - 1, len(sequences)), dtype=np.intp)
        for column, ids in enumerate(sequences):
            targets[: len(ids) - 1, column] = ids[1:]
        nats: Array = np.zeros(targets.shape, dtype=np.float32)
        entropy = np.zeros_like(nats) if self._with_entropy else None
        for time, (_, outputs) in enumerate(self._network.step_ragged([ids[:-1] for ids in sequences])):
            if stop():
                break
            num_reading = len(outputs)
            nats[time, :num_reading] = token_nats(
                self._network.logits(outputs),
                targets[time, :num_reading],
                entropy_out=None if entropy is None else entropy[time, :num_reading],
            )
        return nats.T, None if entropy is None else entropy.T


class ModelStreamScorer:
    """Scorer of one text that arrives in parts. It uses one model and starts from the zero state.

    Args:
        network: The model.
        with_entropy: Whether to compute the entropy of each prediction.
    """

    def __init__(self, network: RecurrentNetwork, *, with_entropy: bool = False) -> None:
        self._network = network
        self._with_entropy = with_entropy
        self._state = network.zero_state(1)
        self._last = network.tokenizer.encode(START)
        self._block_steps = max(1, MAX_BLOCK_NUMBERS // max(network.config.vocab_size, 4 * network.config.hidden_size))

    def feed(self, text: str) -> TokenScores:
        """Score the next part of the text."""
        ids = self._network.tokenizer.encode(text)
        nats: Array = np.empty(len(ids), dtype=np.float32)
        entropy = np.empty_like(nats) if self._with_entropy else None
        for begin in range(0, len(ids), self._block_steps):
            block = slice(begin, begin + self._block_steps)
            targets = ids[block]
            outputs = self._network.read(np.concatenate([self._last, targets[:-1]])[None], self._state)[0]
            entropy_out = None if entropy is None else entropy[block]
            nats[block] = token_nats(self._network.logits(outputs), targets, entropy_out=entropy_out)
            self._last = targets[-1:]
        (scores,) = self._network.unknown_tokens.add_spelling([TokenScores(text, ids, nats, entropy_nats=entropy)])
        return scores


class Mixture:
    """Scorer that interpolates the probabilities of several models: p = w_1 * p_1 + w_2 * p_2 + ...

    The events are the tokens that at least one model knows, and one event for all other tokens. A model gives equal
    parts of the probability of its unknown token to each event that it does not know. Therefore, the interpolated
    probabilities add up to 1, even if the vocabularies differ. The spelling of a token that no model knows is
    interpolated too.

    Args:
        scorers: The models.
        weights: The weight of each model; they add up to 1.

    Attributes:
        tokenizer: Tokenizer with the tokens that at least one model knows.
        unknown_words: As in `Scorer`.
        spells_unknown_tokens: As in `Scorer`.

    Raises:
        ConfigError: If the models split text into different tokens.
    """

    def __init__(self, scorers: Sequence[Scorer], weights: Sequence[float]) -> None:
        self.tokenizer = join_vocabularies([scorer.tokenizer for scorer in scorers])
        self.unknown_words = WordCounts()
        self.spells_unknown_tokens = all(scorer.spells_unknown_tokens for scorer in scorers)
        self._scorers = scorers
        self._weights = weights
        ids = {token: token_id for token_id, token in enumerate(self.tokenizer.tokens) if token_id != UNKNOWN_ID}
        self._components = [_Component(scorer.tokenizer, ids) for scorer in scorers]

    def score_lines(self, lines: Sequence[str]) -> list[TokenScores]:
        """Score lines independently of each other.

        Args:
            lines: Lines that are not empty, each with its newline if it has one.
        """
        scores_of_models = [scorer.score_lines(lines) for scorer in self._scorers]
        return [self.interpolate(scores) for scores in zip(*scores_of_models, strict=True)]

    def start_stream(self) -> "MixtureStreamScorer":
        """Start a text that arrives in parts. Only one part needs to fit into memory."""
        return MixtureStreamScorer(self, [scorer.start_stream() for scorer in self._scorers])

    def interpolate(self, scores: Sequence[TokenScores]) -> TokenScores:
        """Interpolate the probabilities of the tokens of a text.

        Args:
            scores: The text scored by each model.
        """
        first = scores[0]
        mapped = [component.map(part) for component, part in zip(self._components, scores, strict=True)]
        ids = np.max([part.ids for part in mapped], axis=0)  # the ids of known tokens are equal, and unknown ones are 0
        nats = self._mean([part.nats for part in mapped])
        unknown = ids == UNKNOWN_ID
        if not unknown.any():
            return TokenScores(first.text, ids, nats)
        words = tuple(itertools.compress(first.unknown_words, unknown[first.ids == UNKNOWN_ID].tolist()))
        self.unknown_words.add(words)
        spellings = [part.spelling_nats for part in scores if part.spelling_nats is not None]
        if len(spellings) < len(scores):  # a model has no costs for spelling
            return TokenScores(first.text, ids, nats, unknown_words=words)
        spelt = self._mean([part.nats + unknown * spelling for part, spelling in zip(mapped, spellings, strict=True)])
        return TokenScores(first.text, ids, spelt, spelling_nats=spelt - nats, unknown_words=words)

    def _mean(self, nats: Sequence[Array]) -> Array:
        """Return the interpolated negative log-probabilities of tokens, (T,), from those of each model."""
        weighted = [math.log(weight) - part for weight, part in zip(self._weights, nats, strict=True) if weight > 0]
        mean: Array = -np.logaddexp.reduce(weighted, axis=0)
        return mean


class _Component:
    """Mapping of one model's scores to the vocabulary of a mixture.

    Args:
        tokenizer: The model's tokenizer.
        ids: Ids of the known tokens in the mixture.
    """

    def __init__(self, tokenizer: Tokenizer, ids: Mapping[str, int]) -> None:
        self._ids = np.array([ids.get(token, UNKNOWN_ID) for token in tokenizer.tokens])
        self._ids[UNKNOWN_ID] = UNKNOWN_ID
        num_unknown_events = len(ids) - len(tokenizer.tokens) + 2  # both lists of tokens have one unknown token
        self._unknown_nats = np.float32(math.log(num_unknown_events))

    def map(self, scores: TokenScores) -> TokenScores:
        """Return the scores with the mixture's ids, without spelling; the unknown token's probability is divided."""
        nats = np.where(scores.ids == UNKNOWN_ID, scores.token_nats + self._unknown_nats, scores.nats)
        return TokenScores(scores.text, self._ids[scores.ids], nats)


class MixtureStreamScorer:
    """Scorer of one text that arrives in parts. It interpolates the probabilities of several models.

    Args:
        mixture: The mixture.
        streams: The scorers of the text by each model.
    """

    def __init__(self, mixture: Mixture, streams: Sequence[StreamScorer]) -> None:
        self._mixture = mixture
        self._streams = streams

    def feed(self, text: str) -> TokenScores:
        """Score the next part of the text."""
        return self._mixture.interpolate([stream.feed(text) for stream in self._streams])


def score_text(network: RecurrentNetwork, text: str) -> Score:
    """Score a text as one stream.

    Raises:
        ValueError: If the text is empty.
    """
    if not text:
        raise ValueError("an empty text has no score")
    scores = ModelStreamScorer(network).feed(fold_line_ends(text))
    return replace(scores, num_returns=text.count("\r\n")).score


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
