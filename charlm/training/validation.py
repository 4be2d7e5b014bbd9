"""Validation loss of a model during its training, and its loss on a sample of the training text.

Shapes: N number of tokens, S number of streams, H hidden.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from charlm.engine.adaptive import Adaptation
from charlm.engine.ngram import NGram
from charlm.text.tokenizer import Ids
from charlm.training.adapting import Predictions, adaptive_loss, fit, predictions
from charlm.training.counting import (
    MAX_VALIDATION_TOKENS,
    Nats,
    best_weight,
    interpolated_token_nats,
    item_sequences,
    text_sequence,
)
from charlm.training.items import IGNORED, Items
from charlm.training.network import LanguageModel, reset_state
from charlm.training.schedule import Schedule
from charlm.training.stopwatch import Stopwatch

T = TypeVar("T")

STREAM_TOKENS = 2048
"""Approximate number of tokens per stream. The text is read in parallel streams of consecutive parts."""

WARM_UP_TOKENS = 192
"""Number of tokens before its part that a stream reads first, without counting their loss. A recurrent model forgets
earlier tokens, so that the result is nearly that of one pass over the whole text (a test compares them)."""

MAX_LOGITS = 2**22
"""Maximum number of logits in memory at a time."""

BLOCK_STEPS = 32
"""Number of time steps that are read at a time; a divisor of `WARM_UP_TOKENS`. A validation can be stopped after each
block."""

ITEM_ROWS = 256
"""Number of items that are read in parallel."""

SAMPLE_STREAMS = 16
"""Number of evenly spaced parts of the training text, of `STREAM_TOKENS` tokens each, that are a sample of it."""


@dataclass(frozen=True, kw_only=True)
class ValidationLoss:
    """Result of a validation, in nats per token.

    Attributes:
        nats: Loss of the model: of the network, or of its mixture with an n-gram model.
        network_nats: Loss of the network alone.
        ngram_nats: Loss of the n-gram model alone; None if there is none.
        weight: Weight of the n-gram model in the mixture; 0 if it does not help.
        token_nats: Loss at each token of the data, (N,).
    """

    nats: float
    network_nats: float
    token_nats: npt.NDArray[np.floating[Any]]
    ngram_nats: float | None = None
    weight: float = 0.0


class Validator(Generic[T]):
    """Validation of a model on data that it is not trained on, and on a sample of its training data.

    This is the base class for texts and for lists of items.

    Args:
        model: The model.
        train_data: The training data. It may be memory-mapped: only the tokens of the sample are read.
        data: The validation data; it may be empty. Only its first `MAX_VALIDATION_TOKENS` tokens are used.
        start_id: The newline token.
        stop: Function that ends a validation early by returning True.
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
        ngram: NGram | None = None,
    ) -> None:
        self._model = model
        self._train_data = train_data
        self._start_id = start_id
        self._stop = stop
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
        seconds_per_token = max(1e-9, seconds) / sample_tokens
        self.data = self._first(self.data, max(sample_tokens, schedule.max_validation_tokens(seconds_per_token)))
        schedule.record_validation(seconds_per_token * self.num_tokens)

    def validate(self) -> ValidationLoss | None:
        """Return the validation loss; None if the validation was stopped early.

        The weight of the n-gram model is the one with the lowest loss.
        """
        nats = self.token_nats()
        if nats is None:
            return None
        network_nats = _mean(nats)
        if self._ngram is None:
            return ValidationLoss(nats=network_nats, network_nats=network_nats, token_nats=nats)
        weight = best_weight(nats, self._ngram_nats)
        token_nats = interpolated_token_nats(nats, self._ngram_nats, weight) if weight else nats
        return ValidationLoss(
            nats=float(token_nats.mean(dtype=np.float64)),
            network_nats=network_nats,
            token_nats=token_nats,
            ngram_nats=self.ngram_loss(),
            weight=weight,
        )

    def ngram_loss(self) -> float:
        """Return the validation loss of the n-gram model alone in nats per token."""
        return _mean(self._ngram_nats)

    @functools.cached_property
    def _ngram_nats(self) -> Nats:
        """Loss of the n-gram model at each token of the data, in nats. `limit_time` must be called before."""
        assert self._ngram is not None, "there is an n-gram model"
        return self._nats_of(self._ngram)

    def token_nats(self) -> Nats | None:
        """Return the loss of the network at each token of the data, in nats; None if it was stopped early."""
        raise NotImplementedError

    def fit_adaptation(
        self, loss: ValidationLoss, default: Adaptation, earlier: Adaptation | None
    ) -> tuple[Adaptation, float] | None:
        """Return the constants of the adaptive part that fit the data, and their loss; None for a list of items.

        Args:
            loss: Loss of the model on the data.
            default: Constants of models that are not fitted.
            earlier: Constants that fitted the data at a validation before.
        """
        return None

    def _nats_of(self, ngram: NGram) -> Nats:
        """Return the loss of an n-gram model at each token of the data, in nats."""
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

    _predictions: Sequence[Predictions] = ()
    _num_predicted = 0

    def token_nats(self) -> Nats | None:
        """Return the loss at each token of the validation text; see `Validator.token_nats`."""
        return validation_nats(self._model, self.data, self._start_id, self._stop)

    def fit_adaptation(
        self, loss: ValidationLoss, default: Adaptation, earlier: Adaptation | None
    ) -> tuple[Adaptation, float] | None:
        """Fit the adaptive part to the validation text; see `Validator.fit_adaptation`."""
        if self._num_predicted != len(loss.token_nats):  # `limit_time` may have shortened the data
            self._num_predicted = len(loss.token_nats)
            ids = np.concatenate([[self._start_id], self.data])
            self._predictions = predictions(ids, default.context_lengths)
        adaptation = fit(loss.token_nats, self._predictions, default, earlier)
        return adaptation, adaptive_loss(loss.token_nats, self._predictions, adaptation)

    def _nats_of(self, ngram: NGram) -> Nats:
        return text_sequence(self.data, self._start_id).nats(ngram)

    def sample_loss(self) -> float | None:
        """Return the loss on evenly spaced parts of the training text; see `Validator.sample_loss`."""
        return sample_loss(self._model, self._train_data, self._start_id, self._stop)

    def _first(self, data: Ids, num_tokens: int) -> Ids:
        return data[:num_tokens]

    def _count(self, data: Ids) -> int:
        return len(data)


class ItemValidator(Validator[Items]):
    """Validation of a model on a list of items in random order."""

    def token_nats(self) -> Nats | None:
        """Return the loss at each token of the validation items; see `Validator.token_nats`."""
        return item_nats(self._model, self.data, self._start_id, self._stop)

    def _nats_of(self, ngram: NGram) -> Nats:
        return item_sequences(self.data, self._start_id).nats(ngram)

    def sample_loss(self) -> float | None:
        """Return the loss on the first training items; see `Validator.sample_loss`."""
        sample = self._train_data.first(SAMPLE_STREAMS * STREAM_TOKENS)
        nats = item_nats(self._model, sample, self._start_id, self._stop)
        return None if nats is None else _mean(nats)

    def _first(self, data: Items, num_tokens: int) -> Items:
        return data.first(num_tokens)

    def _count(self, data: Items) -> int:
        return data.num_tokens


@contextmanager
def evaluation(model: LanguageModel) -> Iterator[None]:
    """Switch dropout off, and restore the mode of a model afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@torch.no_grad()
def item_nats(
    model: LanguageModel, items: Items, start_id: int, stop: Callable[[], bool] = lambda: False
) -> Nats | None:
    """Return the loss at each token of items, in nats. Each item starts from the zero state after one newline.

    Args:
        model: The model. Its mode, training or evaluation, stays the same.
        items: The items, at least one.
        start_id: The newline token.
        stop: Called before every block. If it returns True, the result is None.

    Returns:
        The losses, (N,), in the order of the items.
    """
    device = model.decoder.bias.device
    nats: Nats = np.zeros(items.num_tokens, dtype=np.float32)
    firsts = np.cumsum(items.lengths) - items.lengths
    with evaluation(model):
        for rows in np.array_split(np.argsort(items.lengths, kind="stable"), -(-len(items) // ITEM_ROWS)):
            state, longest = model.core.zero_state(len(rows)), int(items.lengths[rows[-1]])
            for offset in range(0, longest, BLOCK_STEPS):
                if stop():
                    return None
                length = min(BLOCK_STEPS, longest - offset)
                ids, targets = map(torch.from_numpy, items.window(rows, offset, length, start_id))
                outputs, state = model.read(ids.to(device), state)
                counted = targets != IGNORED
                places = firsts[rows][:, None] + np.arange(offset, offset + length)
                nats[places[counted.numpy()]] = _target_nats(
                    model, outputs[counted.to(device)], targets[counted].to(device)
                )
    return nats


def validation_nats(
    model: LanguageModel, ids: Ids, start_id: int, stop: Callable[[], bool] = lambda: False
) -> Nats | None:
    """Return the loss at each token of a text, (N,), in nats.

    As in scoring, the text starts from the zero state after one newline.

    Args:
        model: The model. Its mode, training or evaluation, stays the same.
        ids: The text, (N,), at least one token.
        start_id: The newline token.
        stop: Called before every block. If it returns True, the result is None.
    """
    num_streams = max(1, round(len(ids) / STREAM_TOKENS))
    length = -(-len(ids) // num_streams)
    nats = _part_nats(model, ids, np.arange(num_streams) * length, length, start_id, stop)
    return None if nats is None else nats.flatten()[: len(ids)]


def sample_loss(
    model: LanguageModel, ids: Ids, start_id: int, stop: Callable[[], bool] = lambda: False
) -> float | None:
    """Return the mean loss over evenly spaced parts of a text, in nats per token; see `validation_nats`.

    A text that is not longer than the sample is read completely.
    """
    if len(ids) <= SAMPLE_STREAMS * STREAM_TOKENS:
        nats = validation_nats(model, ids, start_id, stop)
    else:
        starts = np.linspace(0, len(ids) - STREAM_TOKENS, SAMPLE_STREAMS).astype(np.int64)
        nats = _part_nats(model, ids, starts, STREAM_TOKENS, start_id, stop)
    return None if nats is None else _mean(nats)


@torch.no_grad()
def _part_nats(
    model: LanguageModel,
    ids: Ids,
    starts: npt.NDArray[np.int64],
    length: int,
    start_id: int,
    stop: Callable[[], bool],
) -> Nats | None:
    """Return the loss at each token of parts of a text that are read in parallel, in nats.

    Args:
        model: The model.
        ids: The text, (N,).
        starts: First token of each part, (S,). The tokens before it are read without counting their loss.
        length: Number of tokens of each part. A part may extend beyond the end of the text.
        start_id: The newline token.
        stop: Called before every block. If it returns True, the result is None.

    Returns:
        The losses, (S, `length`), 0 beyond the end of the text.
    """
    device = model.decoder.bias.device
    state = model.core.zero_state(len(starts))
    nats: Nats = np.zeros((len(starts), length), dtype=np.float32)
    with evaluation(model):
        for offset in range(-WARM_UP_TOKENS if len(starts) > 1 else 0, length, BLOCK_STEPS):
            if stop():
                return None
            if offset == 0:  # the first part has no tokens before it
                state = reset_state(state, starts == 0)
            places = starts[:, None] + np.arange(offset, min(offset + BLOCK_STEPS, length))
            counted = (places >= starts[:, None]) & (places < len(ids))
            places = places.clip(0, len(ids) - 1)
            inputs = ids[np.maximum(places - 1, 0)].astype(np.int64)  # the token before each place
            inputs[places == 0] = start_id
            outputs, state = model.read(torch.from_numpy(inputs).to(device), state)
            if offset >= 0 and counted.any():
                targets = torch.from_numpy(ids[places[counted]].astype(np.int64)).to(device)
                block = nats[:, offset : offset + counted.shape[1]]
                block[counted] = _target_nats(model, outputs[torch.from_numpy(counted).to(device)], targets)
    return nats


def _target_nats(model: LanguageModel, outputs: Tensor, targets: Tensor) -> Nats:
    """Return the loss at each target, (N,), in nats. Up to `MAX_LOGITS` logits are computed at a time.

    Args:
        model: The model.
        outputs: Inputs of its decoder, (N, H).
        targets: Correct tokens, (N,), int64.
    """
    rows = max(1, MAX_LOGITS // model.config.vocab_size)
    parts = [
        F.cross_entropy(model.decoder(part), wanted, reduction="none").float().cpu()
        for part, wanted in zip(torch.split(outputs, rows), torch.split(targets, rows), strict=True)
    ]
    nats: Nats = torch.cat(parts).numpy()
    return nats


def _mean(nats: Nats) -> float:
    return float(nats.mean(dtype=np.float64))
