"""Mixture of predictors, and the predictor of a model file.

The probability of a token is interpolated with constant weights, p = w_1 p_1 + w_2 p_2 + ..., or with those of a gate;
see `charlm.engine.gate`.

Source:
    Mikolov et al., Recurrent neural network based language model, Interspeech 2010, section 3: a network and a
    Kneser-Ney model that are interpolated have a lower loss than each of them.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from charlm.config import NGRAM_CELL
from charlm.engine.checkpoint import Checkpoint
from charlm.engine.gate import Gate
from charlm.engine.ngram_predictor import NUMBERS_PER_PROB, NGramPredictor, NGramReader, NGramStream
from charlm.engine.predictor import (
    MAX_BLOCK_NUMBERS,
    Array,
    Predictor,
    ProbsStream,
    Reader,
    TokenCosts,
    TokenStream,
    log_of_probs,
    softmax,
)
from charlm.engine.rnn import NetworkReader, NetworkStream, RecurrentNetwork
from charlm.engine.unknown import UnknownTokens
from charlm.text.tokenizer import Ids


def open_predictor(checkpoint: Checkpoint) -> Predictor:
    """Return the predictor of a model file: a network, an n-gram model, or the mixture of both.

    Args:
        checkpoint: Content of the model file.
    """
    counts = checkpoint.counts
    if checkpoint.config.cell == NGRAM_CELL:
        assert counts is not None, "checked when the file is read"
        unknown_tokens = UnknownTokens(checkpoint.tokenizer, checkpoint.spelling)
        return NGramPredictor(counts.ngram, checkpoint.tokenizer, unknown_tokens)
    network = RecurrentNetwork(checkpoint)
    if counts is None:
        return network
    ngram = NGramPredictor(counts.ngram, network.tokenizer, network.unknown_tokens)
    if counts.gate is None:
        return Mixture([network, ngram], [1 - counts.weight, counts.weight])
    return GatedMixture(network, ngram, counts.gate)


class Mixture(Predictor):
    """Predictor that interpolates the probabilities of others, which have the same vocabulary.

    Args:
        parts: The predictors, at least one. The tokenizer and the costs of unknown tokens are those of the first.
        weights: The weight of each part; they add up to 1.

    Attributes:
        parts: As given.
        weights: As given.
        tokenizer: Tokenizer of the first part.
        unknown_tokens: Costs of the unknown tokens by the first part.
    """

    def __init__(self, parts: Sequence[Predictor], weights: Sequence[float]) -> None:
        self.parts = tuple(parts)
        self.weights = tuple(weights)
        self.tokenizer = parts[0].tokenizer
        self.unknown_tokens = parts[0].unknown_tokens

    def read(self, sequences: Sequence[Ids]) -> "MixtureReader":
        """Read sequences; see `Predictor.read`."""
        return MixtureReader([part.read(sequences) for part in self.parts], self.weights)

    def score(
        self, sequences: Sequence[Ids], *, with_entropy: bool = False, stop: Callable[[], bool] = lambda: False
    ) -> TokenCosts:
        """Score a batch of sequences; see `Predictor.score`."""
        if with_entropy:
            return super().score(sequences, with_entropy=True, stop=stop)
        return mean_costs([part.score(sequences, stop=stop) for part in self.parts], self.weights)

    def start_stream(self, *, with_entropy: bool = False) -> TokenStream:
        """Start a text that is scored in parts; see `Predictor.start_stream`."""
        if with_entropy:
            return super().start_stream(with_entropy=True)
        return MixtureStream([part.start_stream() for part in self.parts], self.weights)


class MixtureReader(Reader):
    """Sequences that the parts of a mixture read in parallel.

    Args:
        readers: Reader of each part.
        weights: The weight of each part.
    """

    def __init__(self, readers: Sequence[Reader], weights: Sequence[float]) -> None:
        self._readers = readers
        self._first, *others = readers
        self._weight, *weights_of_others = np.array(weights, dtype=np.float32)
        self._others = list(zip(others, weights_of_others, strict=True))

    @property
    def rows(self) -> int:
        """Number of sequences, B."""
        return self._first.rows

    def logits(self) -> Array:
        """Return the unnormalised log-probabilities of the next token, (B, V), float32.

        The sum of their exponentials is that of the first part. Therefore, a penalty for repeated tokens, which depends
        on the signs of logits, has the same strength as without the other parts.
        """
        probs, log_total = self._interpolated()
        logits = log_of_probs(probs)
        logits += log_total
        return logits

    def probs(self) -> Array:
        """Return the probabilities of the next token, (B, V), float32."""
        return self._interpolated()[0]

    def _interpolated(self) -> tuple[Array, Array]:
        """Return the probabilities, (B, V), and the logarithm of the sum of the exponentials of the first logits."""
        probs, log_total = softmax(self._first.logits(), self._weight)
        for reader, weight in self._others:
            others = reader.probs()
            others *= weight
            probs += others
        return probs, log_total

    def advance(self, ids: npt.NDArray[np.integer[Any]]) -> None:
        """Read one token of each sequence; see `Reader.advance`."""
        for reader in self._readers:
            reader.advance(ids)

    def select(self, rows: npt.NDArray[np.integer[Any]]) -> None:
        """Continue with a selection of the sequences; see `Reader.select`."""
        for reader in self._readers:
            reader.select(rows)

    def restart(self, rows: Sequence[int]) -> None:
        """Let some sequences start anew; see `Reader.restart`."""
        for reader in self._readers:
            reader.restart(rows)


class MixtureStream(TokenStream):
    """Text that the parts of a mixture score.

    Args:
        streams: The text for each part.
        weights: The weight of each part.
    """

    def __init__(self, streams: Sequence[TokenStream], weights: Sequence[float]) -> None:
        self._streams = streams
        self._weights = weights

    def score(self, ids: Ids) -> TokenCosts:
        """Return the costs of the next tokens, (T,), and read them."""
        return mean_costs([stream.score(ids) for stream in self._streams], self._weights)


class GatedMixture(Predictor):
    """Network and n-gram model, interpolated with the weights of a gate.

    Args:
        network: The network.
        ngram: The n-gram model, with the same vocabulary.
        gate: The gate.

    Attributes:
        tokenizer: Tokenizer of the network.
        unknown_tokens: Costs of the unknown tokens by the network.
    """

    def __init__(self, network: RecurrentNetwork, ngram: NGramPredictor, gate: Gate) -> None:
        self._network = network
        self._ngram = ngram
        self._gate = gate
        self.tokenizer = network.tokenizer
        self.unknown_tokens = network.unknown_tokens

    def read(self, sequences: Sequence[Ids]) -> "GatedReader":
        """Read sequences; see `Predictor.read`."""
        return GatedReader(self._network.read(sequences), self._ngram.read(sequences), self._gate)

    def step_probs(self, sequences: Sequence[Ids]) -> Iterator[Array]:
        """Yield distributions step by step; see `Predictor.step_probs`."""
        networks, ngrams = self._network.step_probs(sequences), self._ngram.step_probs(sequences)
        for network, ngram in zip(networks, ngrams, strict=True):
            yield self._gate.interpolate(network, ngram)

    def start_stream(self, *, with_entropy: bool = False) -> "GatedStream":
        """Start a text that is scored in parts; see `Predictor.start_stream`."""
        network, ngram = self._network.start_stream(), self._ngram.start_stream()
        block_tokens = min(network.block_tokens, MAX_BLOCK_NUMBERS // (NUMBERS_PER_PROB * self.tokenizer.vocab_size))
        return GatedStream(network, ngram, self._gate, block_tokens, with_entropy=with_entropy)


class GatedReader(MixtureReader):
    """Sequences that network and n-gram model read in parallel.

    Args:
        network: Reader of the network.
        ngram: Reader of the n-gram model.
        gate: The gate.
    """

    def __init__(self, network: NetworkReader, ngram: NGramReader, gate: Gate) -> None:
        super().__init__([network, ngram], [1.0, 0.0])
        self._network, self._ngram, self._gate = network, ngram, gate

    def _interpolated(self) -> tuple[Array, Array]:
        """Return the probabilities and a logarithm; see `MixtureReader`."""
        probs, log_total = softmax(self._network.logits())
        return self._gate.interpolate(probs, self._ngram.probs()), log_total


class GatedStream(ProbsStream):
    """Text that network and n-gram model score in parts.

    Args:
        network: The text for the network.
        ngram: The text for the n-gram model.
        gate: The gate.
        block_tokens: Maximum number of tokens whose distributions are in memory at a time.
        with_entropy: Whether to compute entropies.
    """

    def __init__(
        self, network: NetworkStream, ngram: NGramStream, gate: Gate, block_tokens: int, *, with_entropy: bool
    ) -> None:
        super().__init__(block_tokens, with_entropy=with_entropy)
        self._network = network
        self._ngram = ngram
        self._gate = gate

    def probs(self, ids: Ids) -> Array:
        """Return the distributions that predict the next tokens, and read these; see `ProbsStream.probs`."""
        network, _ = softmax(self._network.logits(ids))
        return self._gate.interpolate(network, self._ngram.probs(ids))


def mean_costs(costs: Sequence[TokenCosts], weights: Sequence[float]) -> TokenCosts:
    """Return the costs of tokens whose probabilities are interpolated, without entropies."""
    return TokenCosts(mean_nats([part.nats for part in costs], weights))


def mean_nats(nats: Sequence[Array], weights: Sequence[float]) -> Array:
    """Return the negative logarithms of interpolated probabilities.

    Args:
        nats: Negative log-probabilities by each part, float32, of equal shapes.
        weights: The weight of each part.
    """
    weighted = [math.log(weight) - part for weight, part in zip(weights, nats, strict=True) if weight > 0]
    mean: Array = -np.logaddexp.reduce(weighted, axis=0)
    return mean
