"""Validation loss of a model during its training, and its loss on a sample of the training text.

Shapes: N number of tokens, S number of streams, H hidden.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from charlm.text.tokenizer import Ids
from charlm.training.items import Items
from charlm.training.loss import IGNORED
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

MAX_TOKENS = 500_000
"""Maximum number of tokens of a validation, from the beginning of the validation text."""

SAMPLE_STREAMS = 16
"""Number of evenly spaced parts of the training text, of `STREAM_TOKENS` tokens each, that are a sample of it."""


class Validator(Generic[T]):
    """Validation of a model on data that it is not trained on, and on a sample of its training data.

    This is the base class for texts and for lists of items.

    Args:
        model: The model.
        train_data: The training data. It may be memory-mapped: only the tokens of the sample are read.
        data: The validation data; it may be empty. Only its first `MAX_TOKENS` tokens are used.
        start_id: The newline token.
        stop: Function that ends a validation early by returning True.

    Attributes:
        data: The data that a validation reads.
    """

    def __init__(self, model: LanguageModel, train_data: T, data: T, start_id: int, stop: Callable[[], bool]) -> None:
        self._model = model
        self._train_data = train_data
        self._start_id = start_id
        self._stop = stop
        self.data = self._first(data, MAX_TOKENS)

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

    def loss(self) -> float | None:
        """Return the validation loss in nats per token; None if it was stopped early."""
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

    def loss(self) -> float | None:
        """Return the loss on the validation text; see `Validator.loss`."""
        return validation_loss(self._model, self.data, self._start_id, self._stop)

    def sample_loss(self) -> float | None:
        """Return the loss on evenly spaced parts of the training text; see `Validator.sample_loss`."""
        return sample_loss(self._model, self._train_data, self._start_id, self._stop)

    def _first(self, data: Ids, num_tokens: int) -> Ids:
        return data[:num_tokens]

    def _count(self, data: Ids) -> int:
        return len(data)


class ItemValidator(Validator[Items]):
    """Validation of a model on a list of items in random order."""

    def loss(self) -> float | None:
        """Return the loss on the validation items; see `Validator.loss`."""
        return item_validation_loss(self._model, self.data, self._start_id, self._stop)

    def sample_loss(self) -> float | None:
        """Return the loss on the first training items; see `Validator.sample_loss`."""
        sample = self._first(self._train_data, SAMPLE_STREAMS * STREAM_TOKENS)
        return item_validation_loss(self._model, sample, self._start_id, self._stop)

    def _first(self, data: Items, num_tokens: int) -> Items:
        """Return the first items that have up to `num_tokens` tokens, and at least one if there is one."""
        count = max(1, int(np.searchsorted(np.cumsum(data.lengths), num_tokens, side="right")))
        return data.select(np.arange(min(count, len(data))))

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
def item_validation_loss(
    model: LanguageModel, items: Items, start_id: int, stop: Callable[[], bool] = lambda: False
) -> float | None:
    """Return the mean loss over items, in nats per token. Each item starts from the zero state after one newline.

    Args:
        model: The model. Its mode, training or evaluation, stays the same.
        items: The items, at least one.
        start_id: The newline token.
        stop: Called before every block. If it returns True, the result is None.
    """
    device = model.decoder.bias.device
    total = 0.0
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
                for nats in _part_losses(model, outputs[counted.to(device)], targets[counted].to(device)):
                    total += nats
    return total / items.num_tokens


def validation_loss(
    model: LanguageModel, ids: Ids, start_id: int, stop: Callable[[], bool] = lambda: False
) -> float | None:
    """Return the mean loss over a text, in nats per token.

    As in scoring, the text starts from the zero state after one newline.

    Args:
        model: The model. Its mode, training or evaluation, stays the same.
        ids: The text, (N,), at least one token.
        start_id: The newline token.
        stop: Called before every block. If it returns True, the result is None.
    """
    num_streams = max(1, round(len(ids) / STREAM_TOKENS))
    length = -(-len(ids) // num_streams)
    return _mean_loss(model, ids, np.arange(num_streams) * length, length, start_id, stop)


def sample_loss(
    model: LanguageModel, ids: Ids, start_id: int, stop: Callable[[], bool] = lambda: False
) -> float | None:
    """Return the mean loss over evenly spaced parts of a text, in nats per token; see `validation_loss`.

    A text that is not longer than the sample is read completely.
    """
    if len(ids) <= SAMPLE_STREAMS * STREAM_TOKENS:
        return validation_loss(model, ids, start_id, stop)
    starts = np.linspace(0, len(ids) - STREAM_TOKENS, SAMPLE_STREAMS).astype(np.int64)
    return _mean_loss(model, ids, starts, STREAM_TOKENS, start_id, stop)


@torch.no_grad()
def _mean_loss(
    model: LanguageModel,
    ids: Ids,
    starts: npt.NDArray[np.int64],
    length: int,
    start_id: int,
    stop: Callable[[], bool],
) -> float | None:
    """Return the mean loss over parts of a text that are read in parallel, in nats per token.

    Args:
        model: The model.
        ids: The text, (N,).
        starts: First token of each part, (S,). The tokens before it are read without counting their loss.
        length: Number of tokens of each part. A part may extend beyond the end of the text.
        start_id: The newline token.
        stop: Called before every block. If it returns True, the result is None.
    """
    device = model.decoder.bias.device
    state = model.core.zero_state(len(starts))
    total, num_counted = 0.0, 0
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
                for nats in _part_losses(model, outputs[torch.from_numpy(counted).to(device)], targets):
                    total += nats
                num_counted += len(targets)
    return total / num_counted


def _part_losses(model: LanguageModel, outputs: Tensor, targets: Tensor) -> Iterator[float]:
    """Yield the sum of the losses, in nats, of each part of at most `MAX_LOGITS` logits.

    Args:
        model: The model.
        outputs: Inputs of its decoder, (N, H).
        targets: Correct tokens, (N,), int64.
    """
    rows = max(1, MAX_LOGITS // model.config.vocab_size)
    for part, wanted in zip(torch.split(outputs, rows), torch.split(targets, rows), strict=True):
        yield float(F.cross_entropy(model.decoder(part), wanted, reduction="sum"))
