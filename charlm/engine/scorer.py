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
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from charlm.config import MAX_BATCH_LINES
from charlm.engine.mixture import mean_nats
from charlm.engine.predictor import MAX_BLOCK_NUMBERS, START, Predictor, TokenCosts
from charlm.engine.scores import Score, TokenScores
from charlm.engine.unknown import WordCounts
from charlm.text.joint_vocabulary import join_vocabularies, translate_ids
from charlm.text.line_ends import fold_line_ends
from charlm.text.tokenizer import UNKNOWN_ID, Ids, Tokenizer

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor


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
        predictor: The model.
        threads: Number of threads. Each thread scores batches of lines of its own: NumPy releases Python's global lock
            in its loops, and independent batches are faster than matrix products that threads share.
        with_entropy: Whether to compute the entropy of each prediction.

    Attributes:
        tokenizer: The model's tokenizer.
        unknown_words: As in `Scorer`.
        spells_unknown_tokens: As in `Scorer`.
    """

    def __init__(self, predictor: Predictor, threads: int = 1, *, with_entropy: bool = False) -> None:
        self._predictor = predictor
        self._threads = threads
        self._with_entropy = with_entropy
        self.tokenizer = predictor.tokenizer
        self.unknown_words = predictor.unknown_tokens.counts
        self.spells_unknown_tokens = predictor.unknown_tokens.are_spelt

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
        return self._predictor.unknown_tokens.add_spelling([scores[index] for index in range(len(lines))])

    def start_stream(self) -> "ModelStreamScorer":
        """Start a text that arrives in parts. Only one part needs to fit into memory."""
        return ModelStreamScorer(self._predictor, with_entropy=self._with_entropy)

    def _score_batches(self, batches: Sequence[Sequence[Ids]]) -> Iterator[TokenCosts]:
        """Yield the costs of batches of sequences, in the order of the batches."""
        score = functools.partial(self._predictor.score, with_entropy=self._with_entropy)
        if self._threads == 1 or len(batches) == 1:
            yield from map(score, batches)
            return
        ended = threading.Event()
        try:
            yield from self._pool.map(functools.partial(score, stop=ended.is_set), batches)
        finally:
            # Python waits for running threads before it exits, for example after Ctrl-C.
            ended.set()

    @functools.cached_property
    def _pool(self) -> "ThreadPoolExecutor":
        from concurrent.futures import ThreadPoolExecutor  # not needed for a single batch

        return ThreadPoolExecutor(self._threads)


class ModelStreamScorer:
    """Scorer of one text that arrives in parts. It uses one model and starts from the zero state.

    Args:
        predictor: The model.
        with_entropy: Whether to compute the entropy of each prediction.
    """

    def __init__(self, predictor: Predictor, *, with_entropy: bool = False) -> None:
        self._predictor = predictor
        self._stream = predictor.start_stream(with_entropy=with_entropy)

    def feed(self, text: str) -> TokenScores:
        """Score the next part of the text."""
        ids = self._predictor.tokenizer.encode(text)
        nats, entropy = self._stream.score(ids)
        (scores,) = self._predictor.unknown_tokens.add_spelling([TokenScores(text, ids, nats, entropy_nats=entropy)])
        return scores


class ScorerMixture:
    """Scorer that interpolates the probabilities of several models: p = w_1 * p_1 + w_2 * p_2 + ...

    The events are the tokens that at least one model knows, and one event for all other tokens. A model gives equal
    parts of the probability of its unknown token to each event that it does not know. Therefore, the interpolated
    probabilities add up to 1, even if the vocabularies differ. The spelling of a token that no model knows is
    interpolated too. `charlm.engine.translation.mix_predictors` gives the same probabilities for generation, which has
    no spelling.

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
        self._components = [_Component(scorer.tokenizer, self.tokenizer) for scorer in scorers]

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
        nats = mean_nats([part.nats for part in mapped], self._weights)
        unknown = ids == UNKNOWN_ID
        if not unknown.any():
            return TokenScores(first.text, ids, nats)
        words = tuple(itertools.compress(first.unknown_words, unknown[first.ids == UNKNOWN_ID].tolist()))
        self.unknown_words.add(words)
        spellings = [part.spelling_nats for part in scores if part.spelling_nats is not None]
        if len(spellings) < len(scores):  # a model has no costs for spelling
            return TokenScores(first.text, ids, nats, unknown_words=words)
        all_nats = [part.nats + unknown * spelling for part, spelling in zip(mapped, spellings, strict=True)]
        spelt = mean_nats(all_nats, self._weights)
        return TokenScores(first.text, ids, spelt, spelling_nats=spelt - nats, unknown_words=words)


class _Component:
    """Mapping of one model's scores to the vocabulary of a mixture.

    Args:
        tokenizer: The model's tokenizer.
        joint: Tokenizer of the mixture.
    """

    def __init__(self, tokenizer: Tokenizer, joint: Tokenizer) -> None:
        self._ids = translate_ids(tokenizer, joint)
        num_unknown_events = joint.vocab_size - tokenizer.vocab_size + 1  # the unknown token of the mixture is one
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

    def __init__(self, mixture: ScorerMixture, streams: Sequence[StreamScorer]) -> None:
        self._mixture = mixture
        self._streams = streams

    def feed(self, text: str) -> TokenScores:
        """Score the next part of the text."""
        return self._mixture.interpolate([stream.feed(text) for stream in self._streams])


def score_text(predictor: Predictor, text: str) -> Score:
    """Score a text as one stream.

    Raises:
        ValueError: If the text is empty.
    """
    if not text:
        raise ValueError("an empty text has no score")
    scores = ModelStreamScorer(predictor).feed(fold_line_ends(text))
    return replace(scores, num_returns=text.count("\r\n")).score
