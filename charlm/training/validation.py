"""Validation loss of a model during its training, and its loss on a sample of the training text.

Shapes: N number of tokens, S number of streams, H hidden.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from charlm.text.tokenizer import Ids
from charlm.training.network import LanguageModel, reset_state
from charlm.training.schedule import Schedule
from charlm.training.stopwatch import Stopwatch

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

MAX_TOKENS = 500_000
"""Maximum number of tokens of a validation, from the beginning of the validation text."""

SAMPLE_STREAMS = 16
"""Number of evenly spaced parts of the training text, of `STREAM_TOKENS` tokens each, that are a sample of it."""


class Validator:
    """Validation of a model on a text that it is not trained on, and on a sample of its training text.

    Args:
        model: The model.
        train_ids: The training text, (N,). It may be memory-mapped: only the tokens of the sample are read.
        ids: The validation text, (N,); it may be empty. Only its first `MAX_TOKENS` tokens are used.
        start_id: The newline token.
        stop: Function that ends a validation early by returning True.

    Attributes:
        ids: The tokens that a validation reads.
    """

    def __init__(self, model: LanguageModel, train_ids: Ids, ids: Ids, start_id: int, stop: Callable[[], bool]) -> None:
        self._model = model
        self._train_ids = train_ids
        self._start_id = start_id
        self._stop = stop
        self.ids = ids[:MAX_TOKENS]

    def loss(self) -> float | None:
        """Return the validation loss in nats per token; None if it was stopped early."""
        return validation_loss(self._model, self.ids, self._start_id, self._stop)

    def sample_loss(self) -> float | None:
        """Return the loss on a sample of the training text in nats per token; None if it was stopped early."""
        return sample_loss(self._model, self._train_ids, self._start_id, self._stop)

    def limit_time(self, schedule: Schedule, watch: Stopwatch) -> None:
        """Measure the speed of validation, and shorten the text if it would take too much of the time limit."""
        began = watch.read()
        self.sample_loss()
        seconds, sample_tokens = watch.read() - began, min(len(self._train_ids), SAMPLE_STREAMS * STREAM_TOKENS)
        schedule.reserve(seconds)
        seconds_per_token = max(1e-9, seconds) / sample_tokens
        self.ids = self.ids[: max(sample_tokens, schedule.max_validation_tokens(seconds_per_token))]
        schedule.record_validation(seconds_per_token * len(self.ids))


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
    was_training = model.training
    model.eval()
    state = model.core.zero_state(len(starts))
    total, num_counted = 0.0, 0
    try:
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
    finally:
        model.train(was_training)
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
