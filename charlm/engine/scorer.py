"""How probable a model finds a text: negative log-likelihood by token, line and document, in nats.

The rule: a text, or a line scored by itself, starts from the zero state after one newline token. Every token
counts, the line's own newline too unless the input lacks it. An unknown token costs what the model gives its
unknown token, and unknowns are counted. Characters and bytes are those of the original text, so that models of
characters and of words compare.
"""

import functools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from charlm.engine.rnn import START, Array, RecurrentNetwork
from charlm.errors import ConfigError
from charlm.text.tokenizer import UNKNOWN_ID, Ids, Tokenizer

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

ROWS = 128
"""Lines scored at a time: from here on a matrix product gains little by more."""

BLOCK = 2**22
"""Numbers held at a time by a thread, in logits or gates, whatever the length of the text."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a text costs.

    Attributes:
        nll_nats: Negative log-likelihood of the whole, in nats.
        tokens: Tokens counted.
        unknowns: How many of them are unknown to the model.
        unknown_nats: The part of `nll_nats` that they cost.
        chars: Characters of the text.
        bytes: Bytes of the text in UTF-8.
    """

    nll_nats: float = 0.0
    tokens: int = 0
    unknowns: int = 0
    unknown_nats: float = 0.0
    chars: int = 0
    bytes: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(
            nll_nats=self.nll_nats + other.nll_nats,
            tokens=self.tokens + other.tokens,
            unknowns=self.unknowns + other.unknowns,
            unknown_nats=self.unknown_nats + other.unknown_nats,
            chars=self.chars + other.chars,
            bytes=self.bytes + other.bytes,
        )

    @property
    def nats_per_token(self) -> float:
        """Mean cost of a token, in nats."""
        return self.nll_nats / self.tokens

    @property
    def nats_per_char(self) -> float:
        """Mean cost of a character, in nats."""
        return self.nll_nats / self.chars

    @property
    def bits_per_token(self) -> float:
        """Mean cost of a token, in bits."""
        return self.nats_per_token / math.log(2)

    @property
    def bits_per_char(self) -> float:
        """Mean cost of a character, in bits."""
        return self.nats_per_char / math.log(2)

    @property
    def bits_per_byte(self) -> float:
        """Mean cost of a byte of UTF-8, in bits."""
        return self.nll_nats / self.bytes / math.log(2)

    @property
    def perplexity(self) -> float:
        """Exponential of the mean cost of a token; infinite where it is beyond a float."""
        return _exp(self.nats_per_token)

    @property
    def perplexity_of_known(self) -> float:
        """The same without the unknown tokens; not a number if all are unknown."""
        known = self.tokens - self.unknowns
        return _exp((self.nll_nats - self.unknown_nats) / known) if known else math.nan


@dataclass(frozen=True, eq=False)
class Costs:
    """A text and what each of its tokens costs.

    Attributes:
        text: The text.
        ids: Its tokens, (T,).
        nats: Their costs, (T,), float32.
    """

    text: str
    ids: Ids
    nats: Array

    @functools.cached_property
    def score(self) -> Score:
        """The whole."""
        unknown = self.ids == UNKNOWN_ID
        return Score(
            nll_nats=float(self.nats.sum(dtype=np.float64)),
            tokens=len(self.ids),
            unknowns=int(unknown.sum()),
            unknown_nats=float(self.nats[unknown].sum(dtype=np.float64)),
            chars=len(self.text),
            bytes=len(self.text.encode("utf-8", "surrogateescape")),
        )


class Follower(Protocol):
    """Scores one text that comes in parts."""

    def feed(self, text: str) -> Costs:
        """Score the next part."""
        ...


class Scorer(Protocol):
    """A model, or a mixture of models, that scores."""

    tokenizer: Tokenizer

    def score_lines(self, lines: Sequence[str]) -> list[Costs]:
        """Score lines, each by itself, many at a time; they come with their newlines, and none is empty."""
        ...

    def follow(self) -> Follower:
        """Begin a text that comes in parts, of which only one need fit into memory."""
        ...


class ModelScorer:
    """Scores with one model.

    Args:
        network: The model.
        threads: Batches of lines scored at the same time. NumPy lets go of Python's lock in its loops, and batches
            that need not wait for each other go faster than one whose products are shared out.
    """

    def __init__(self, network: RecurrentNetwork, threads: int = 1) -> None:
        self._network = network
        self._threads = threads
        self.tokenizer = network.tokenizer

    def score_lines(self, lines: Sequence[str]) -> list[Costs]:
        """Score lines, each by itself, many at a time; they come with their newlines, and none is empty."""
        encoded = [self.tokenizer.encode(START + line) for line in lines]
        costs: dict[int, Costs] = {}
        order = sorted(range(len(lines)), key=lambda index: -len(encoded[index]))  # alike in length, little is padded
        size = max(1, min(ROWS, -(-len(lines) // self._threads), BLOCK // self.tokenizer.vocab_size))
        batches = [order[begin : begin + size] for begin in range(0, len(order), size)]
        scored = self._score_batches([[encoded[index] for index in batch] for batch in batches])
        for batch, nats in zip(batches, scored, strict=True):
            for index, row in zip(batch, nats, strict=True):
                ids = encoded[index][1:]
                costs[index] = Costs(lines[index], ids, row[: len(ids)])
        return [costs[index] for index in range(len(lines))]

    def _score_batches(self, batches: Sequence[Sequence[Ids]]) -> Iterator[Array]:
        """The costs of each batch, in their order."""
        if self._threads == 1 or len(batches) == 1:
            yield from map(self._score_batch, batches)
            return
        ended = threading.Event()
        try:
            yield from self._pool.map(functools.partial(self._score_batch, stop=ended.is_set), batches)
        finally:  # after Ctrl-C, say: Python waits for its threads before it ends
            ended.set()

    @functools.cached_property
    def _pool(self) -> "ThreadPoolExecutor":
        from concurrent.futures import ThreadPoolExecutor  # which one line by itself does without

        return ThreadPoolExecutor(self._threads)

    def _score_batch(self, sequences: Sequence[Ids], stop: Callable[[], bool] = lambda: False) -> Array:
        """The costs of all tokens but the first of each sequence, (B, T); the longest sequence comes first.

        Once `stop` says True, nobody waits for the rest.
        """
        targets = np.zeros((len(sequences[0]) - 1, len(sequences)), dtype=np.intp)
        for column, ids in enumerate(sequences):
            targets[: len(ids) - 1, column] = ids[1:]
        nats: Array = np.zeros(targets.shape, dtype=np.float32)
        for time, (_, outputs) in enumerate(self._network.step_ragged([ids[:-1] for ids in sequences])):
            if stop():
                break
            reading = len(outputs)
            nats[time, :reading] = token_nats(self._network.logits(outputs), targets[time, :reading])
        return nats.T

    def follow(self) -> "ModelFollower":
        """Begin a text that comes in parts, of which only one need fit into memory."""
        return ModelFollower(self._network)


class ModelFollower:
    """Scores one text that comes in parts, from the zero state.

    Args:
        network: The model.
    """

    def __init__(self, network: RecurrentNetwork) -> None:
        self._network = network
        self._state = network.zero_state(1)
        self._last = network.tokenizer.encode(START)
        self._steps = max(1, BLOCK // max(network.config.vocab_size, 4 * network.config.hidden_size))

    def feed(self, text: str) -> Costs:
        """Score the next part."""
        ids = self._network.tokenizer.encode(text)
        nats: Array = np.empty(len(ids), dtype=np.float32)
        for begin in range(0, len(ids), self._steps):
            now = ids[begin : begin + self._steps]
            outputs = self._network.read(np.concatenate([self._last, now[:-1]])[None], self._state)[0]
            nats[begin : begin + self._steps] = token_nats(self._network.logits(outputs), now)
            self._last = now[-1:]
        return Costs(text, ids, nats)


class Mixture:
    """Scores with two models at once: each token has a weighted mean of the two probabilities.

    Args:
        first: The first model; its vocabulary tells what is unknown.
        second: The other one.
        weight: The second one's weight, between 0 and 1.

    Raises:
        ConfigError: If the models do not cut text into the same tokens.
    """

    def __init__(self, first: Scorer, second: Scorer, weight: float) -> None:
        if first.tokenizer.kind != second.tokenizer.kind:
            raise ConfigError(
                f"--mix: the models must cut text alike, and one reads by {first.tokenizer.kind}, the other by "
                f"{second.tokenizer.kind}; --vs can compare them"
            )
        self.tokenizer = first.tokenizer
        self._scorers = (first, second)
        self._weight = weight

    def score_lines(self, lines: Sequence[str]) -> list[Costs]:
        """Score lines, each by itself, many at a time; they come with their newlines, and none is empty."""
        first, second = (scorer.score_lines(lines) for scorer in self._scorers)
        return [mix(one, other, self._weight) for one, other in zip(first, second, strict=True)]

    def follow(self) -> "MixtureFollower":
        """Begin a text that comes in parts, of which only one need fit into memory."""
        first, second = (scorer.follow() for scorer in self._scorers)
        return MixtureFollower(first, second, self._weight)


class MixtureFollower:
    """Scores one text that comes in parts with two models at once.

    Args:
        first: The first model's follower.
        second: The other one's.
        weight: The second one's weight, between 0 and 1.
    """

    def __init__(self, first: Follower, second: Follower, weight: float) -> None:
        self._followers = (first, second)
        self._weight = weight

    def feed(self, text: str) -> Costs:
        """Score the next part."""
        one, other = (follower.feed(text) for follower in self._followers)
        return mix(one, other, self._weight)


def mix(one: Costs, other: Costs, weight: float) -> Costs:
    """What a text's tokens cost if their probabilities are (1 - weight) of one's and weight of the other's.

    Raises:
        ConfigError: If the tokens are not the same.
    """
    if len(one.ids) != len(other.ids):
        raise ConfigError("--mix: the models must cut text alike, and these do not; --vs can compare them")
    if weight in (0, 1):
        return Costs(one.text, one.ids, other.nats if weight else one.nats)
    nats = -np.logaddexp(math.log1p(-weight) - one.nats, math.log(weight) - other.nats)
    return Costs(one.text, one.ids, nats)


def score_text(network: RecurrentNetwork, text: str) -> Score:
    """Score a text as one stream.

    Raises:
        ValueError: If the text is empty.
    """
    if not text:
        raise ValueError("an empty text has no score")
    return ModelFollower(network).feed(text).score


def token_nats(logits: Array, targets: npt.NDArray[np.integer[Any]]) -> Array:
    """The cost of each target, (N,), under logits, (N, V), which are overwritten."""
    logits -= logits.max(axis=-1, keepdims=True)
    chosen = logits[np.arange(len(targets)), targets]
    nats: Array = np.log(np.exp(logits, out=logits).sum(axis=-1)) - chosen
    return nats


def token_texts(tokenizer: Tokenizer, costs: Costs) -> list[str]:
    """The stretch of text that each token stands for; together they are the text.

    A token of a word has the white space before it, and an unknown one all that lies before the next known one.
    """
    text, ids = costs.text, costs.ids.tolist()
    if tokenizer.kind == "char":
        return list(text)
    pieces: list[str] = []
    done = 0  # characters given to tokens so far
    for number, index in enumerate(ids):
        if index == UNKNOWN_ID:
            known = next((tokenizer.tokens[other] for other in ids[number + 1 :] if other != UNKNOWN_ID), "")
            end = text.find(known, done + 1) if known else len(text)
        else:
            end = text.find(tokenizer.tokens[index], done) + len(tokenizer.tokens[index])
        end = max(end, done)
        pieces.append(text[done:end])
        done = end
    if pieces:
        pieces[-1] += text[done:]
    return pieces


def _exp(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf
