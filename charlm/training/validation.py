"""Validation loss of a model during its training, and its loss on a sample of the training text.

Shapes: N number of tokens, K order of the n-gram model.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from charlm.engine.adaptive import Adaptation
from charlm.engine.gate import Gate
from charlm.engine.ngram import NGram
from charlm.engine.ngram_builder import Sequences
from charlm.text.tokenizer import Ids
from charlm.training.adapting import Predictions, adaptive_loss, fit, predictions
from charlm.training.counting import (
    MAX_VALIDATION_TOKENS,
    MIN_GAIN,
    Nats,
    best_weight,
    interpolated_token_nats,
    item_sequences,
    text_sequence,
)
from charlm.training.gating import GateFeatures, fit_gate, gated_nats
from charlm.training.items import Items
from charlm.training.network import LanguageModel
from charlm.training.schedule import Schedule
from charlm.training.stopwatch import Stopwatch
from charlm.training.token_losses import (
    SAMPLE_STREAMS,
    STREAM_TOKENS,
    Observer,
    item_nats,
    mean_of,
    sample_loss,
    validation_nats,
)

T = TypeVar("T")

SPEED_TOKENS = 4096
"""Number of tokens with which the speed of the n-gram model is measured."""


@dataclass(frozen=True, kw_only=True)
class ValidationLoss:
    """Result of a validation, in nats per token.

    Attributes:
        nats: Loss of the model: of the network, or of its mixture with an n-gram model.
        network_nats: Loss of the network alone.
        ngram_nats: Loss of the n-gram model alone; None if there is none.
        weight: Weight of the n-gram model in the mixture; 0 if it does not help. With a gate, its mean.
        gate: Weights that depend on the predictions; None if they are not better than the constant weight.
        token_nats: Loss at each token of the data, (N,).
    """

    nats: float
    network_nats: float
    token_nats: npt.NDArray[np.floating[Any]]
    ngram_nats: float | None = None
    weight: float = 0.0
    gate: Gate | None = None


class Validator(Generic[T]):
    """Validation of a model on data that it is not trained on, and on a sample of its training data.

    This is the base class for texts and for lists of items.

    Args:
        model: The model.
        train_data: The training data. It may be memory-mapped: only the tokens of the sample are read.
        data: The validation data; it may be empty. Only its first `MAX_VALIDATION_TOKENS` tokens are used.
        start_id: The newline token.
        stop: Function that ends a validation early by returning True.
        default: Constants of the adaptive part of models that are not fitted.
        ngram: N-gram model that is interpolated with the network; None for the network alone.

    Attributes:
        data: The data that a validation reads.
    """

    def __init__(
        self,
        model: LanguageModel,
        train_data: T,
        data: T,
        start_id: int,
        stop: Callable[[], bool],
        default: Adaptation,
        ngram: NGram | None = None,
    ) -> None:
        self._model = model
        self._train_data = train_data
        self._start_id = start_id
        self._stop = stop
        self._default = default
        self._ngram = ngram
        self.data = self._first(data, MAX_VALIDATION_TOKENS)

    @property
    def num_tokens(self) -> int:
        """Number of tokens that a validation reads."""
        return self._count(self.data)

    def limit_time(self, schedule: Schedule, watch: Stopwatch) -> None:
        """Measure the speed of validation, and shorten the data if it would take too much of the time limit."""
        began = watch.read()
        self.sample_loss()
        seconds = watch.read() - began
        sample_tokens = min(self._count(self._train_data), SAMPLE_STREAMS * STREAM_TOKENS)
        schedule.reserve(seconds)
        seconds_per_token = max(1e-9, seconds) / sample_tokens + self._gate_seconds(watch)
        self.data = self._first(self.data, max(sample_tokens, schedule.max_validation_tokens(seconds_per_token)))
        self._prepare()
        schedule.record_validation(seconds_per_token * self.num_tokens)

    def _prepare(self) -> None:
        """Compute what is the same at every validation, so that the first takes as long as the others."""
        if self._ngram is not None:
            self.ngram_loss()
            self._ngram_states  # noqa: B018 - computed when it is read

    def _gate_seconds(self, watch: Stopwatch) -> float:
        """Return the seconds per token that the distributions of the n-gram model need."""
        if self._ngram is None:
            return 0.0
        states = self._sequences(self._first(self.data, SPEED_TOKENS)).states(self._ngram)
        places = np.arange(states.shape[1])
        logits = torch.zeros(len(places), self._ngram.vocab_size)
        began = watch.read()
        GateFeatures(self._ngram, states).observe(places, logits)
        return (watch.read() - began) / len(places)

    def validate(self) -> ValidationLoss | None:
        """Return the validation loss; None if the validation was stopped early.

        The weight of the n-gram model is the one with the lowest loss. It is replaced by a gate if that is better by
        `MIN_GAIN`.
        """
        features = None if self._ngram is None else GateFeatures(self._ngram, self._ngram_states)
        nats = self.token_nats(None if features is None else features.observe)
        if nats is None:
            return None
        network_nats = mean_of(nats)
        network = ValidationLoss(nats=network_nats, network_nats=network_nats, token_nats=nats)
        return network if features is None else self._with_ngram(network, features)

    def _with_ngram(self, network: ValidationLoss, features: GateFeatures) -> ValidationLoss:
        """Return the loss of the mixture of the network with the n-gram model."""
        nats, ngram_nats = network.token_nats, self._ngram_nats
        best = replace(network, ngram_nats=self.ngram_loss())
        weight = best_weight(nats, ngram_nats)
        if weight:
            token_nats = interpolated_token_nats(nats, ngram_nats, weight)
            best = replace(best, nats=mean_of(token_nats), token_nats=token_nats, weight=weight)
        if not math.isfinite(network.nats):  # the training diverges
            return best
        gate = fit_gate(nats, ngram_nats, features.values, weight)
        token_nats, mean_weight = gated_nats(gate, nats, ngram_nats, features.values)
        mean_nats = mean_of(token_nats)
        if mean_nats > best.nats - MIN_GAIN:
            return best
        return replace(best, nats=mean_nats, token_nats=token_nats, weight=mean_weight, gate=gate)

    def ngram_loss(self) -> float:
        """Return the validation loss of the n-gram model alone in nats per token."""
        return mean_of(self._ngram_nats)

    @functools.cached_property
    def _ngram_nats(self) -> Nats:
        """Loss of the n-gram model at each token of the data, in nats. `limit_time` must be called before."""
        assert self._ngram is not None, "there is an n-gram model"
        return self._sequences(self.data).nats(self._ngram)

    @functools.cached_property
    def _ngram_states(self) -> npt.NDArray[np.int32]:
        """State of the n-gram model before each token of the data. `limit_time` must be called before."""
        assert self._ngram is not None, "there is an n-gram model"
        return self._sequences(self.data).states(self._ngram)

    def token_nats(self, observe: Observer | None = None) -> Nats | None:
        """Return the loss of the network at each token of the data, in nats; None if it was stopped early.

        Args:
            observe: Called with the logits that predict the tokens.
        """
        raise NotImplementedError

    def fit_adaptation(self, loss: ValidationLoss, earlier: Adaptation | None) -> tuple[Adaptation, float] | None:
        """Return the constants of the adaptive part that fit the data, and their loss; None for a list of items.

        Args:
            loss: Loss of the model on the data.
            earlier: Constants that fitted the data at a validation before.
        """
        return None

    def _sequences(self, data: T) -> Sequences:
        """Return data as sequences that an n-gram model reads."""
        raise NotImplementedError

    def sample_loss(self) -> float | None:
        """Return the loss on a sample of the training data in nats per token; None if it was stopped early."""
        raise NotImplementedError

    def _first(self, data: T, num_tokens: int) -> T:
        """Return the beginning of data, of up to `num_tokens` tokens."""
        raise NotImplementedError

    def _count(self, data: T) -> int:
        """Return the number of tokens of data."""
        raise NotImplementedError


class TextValidator(Validator[Ids]):
    """Validation of a model on a text, (N,)."""

    def _prepare(self) -> None:
        super()._prepare()
        self._predictions  # noqa: B018 - computed when it is read

    @functools.cached_property
    def _predictions(self) -> Sequence[Predictions]:
        """Predictions of the adaptive part at each token of the data. `limit_time` must be called before."""
        return predictions(np.concatenate([[self._start_id], self.data]), self._default.context_lengths)

    def token_nats(self, observe: Observer | None = None) -> Nats | None:
        """Return the loss at each token of the validation text; see `Validator.token_nats`."""
        return validation_nats(self._model, self.data, self._start_id, self._stop, observe)

    def fit_adaptation(self, loss: ValidationLoss, earlier: Adaptation | None) -> tuple[Adaptation, float] | None:
        """Fit the adaptive part to the validation text; see `Validator.fit_adaptation`."""
        adaptation = fit(loss.token_nats, self._predictions, self._default, earlier)
        return adaptation, adaptive_loss(loss.token_nats, self._predictions, adaptation)

    def _sequences(self, data: Ids) -> Sequences:
        return text_sequence(data, self._start_id)

    def sample_loss(self) -> float | None:
        """Return the loss on evenly spaced parts of the training text; see `Validator.sample_loss`."""
        return sample_loss(self._model, self._train_data, self._start_id, self._stop)

    def _first(self, data: Ids, num_tokens: int) -> Ids:
        return data[:num_tokens]

    def _count(self, data: Ids) -> int:
        return len(data)


class ItemValidator(Validator[Items]):
    """Validation of a model on a list of items in random order."""

    def token_nats(self, observe: Observer | None = None) -> Nats | None:
        """Return the loss at each token of the validation items; see `Validator.token_nats`."""
        return item_nats(self._model, self.data, self._start_id, self._stop, observe)

    def _sequences(self, data: Items) -> Sequences:
        return item_sequences(data, self._start_id)

    def sample_loss(self) -> float | None:
        """Return the loss on the first training items; see `Validator.sample_loss`."""
        sample = self._train_data.first(SAMPLE_STREAMS * STREAM_TOKENS)
        nats = item_nats(self._model, sample, self._start_id, self._stop)
        return None if nats is None else mean_of(nats)

    def _first(self, data: Items, num_tokens: int) -> Items:
        return data.first(num_tokens)

    def _count(self, data: Items) -> int:
        return data.num_tokens
