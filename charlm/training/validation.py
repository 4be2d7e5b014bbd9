"""Validation loss of a model during its training.

Shapes: N number of tokens, H hidden.
"""

from collections.abc import Callable, Iterator

import numpy as np
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

SAMPLE_TOKENS = 2**15
"""Number of tokens that are read to measure the speed of validation."""


class Validator:
    """Validation of a model on a text.

    Args:
        model: The model.
        ids: The validation text, (N,); it may be empty. Only its first `MAX_TOKENS` tokens are used.
        start_id: The newline token.
        stop: Function that ends a validation early by returning True.

    Attributes:
        ids: The tokens that a validation reads.
    """

    def __init__(self, model: LanguageModel, ids: Ids, start_id: int, stop: Callable[[], bool]) -> None:
        self._model = model
        self._start_id = start_id
        self._stop = stop
        self.ids = ids[:MAX_TOKENS]

    def loss(self) -> float | None:
        """Return the validation loss in nats per token; None if it was stopped early."""
        return validation_loss(self._model, self.ids, self._start_id, self._stop)

    def limit_time(self, schedule: Schedule, watch: Stopwatch) -> None:
        """Measure the speed of validation, and shorten the text if it would take too much of the time limit."""
        began, sample = watch.read(), self.ids[:SAMPLE_TOKENS]
        validation_loss(self._model, sample, self._start_id, self._stop)
        seconds_per_token = max(1e-9, watch.read() - began) / len(sample)
        self.ids = self.ids[: max(len(sample), schedule.max_validation_tokens(seconds_per_token))]
        schedule.record_validation(seconds_per_token * len(self.ids))


@torch.no_grad()
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
    device = model.decoder.bias.device
    was_training = model.training
    model.eval()
    num_streams = max(1, round(len(ids) / STREAM_TOKENS))
    length = -(-len(ids) // num_streams)
    tokens = np.concatenate([np.array([start_id]), ids]).astype(np.int64)
    starts = np.arange(num_streams)[:, None] * length
    state = model.core.zero_state(num_streams)
    total = 0.0
    try:
        for offset in range(-WARM_UP_TOKENS if num_streams > 1 else 0, length, BLOCK_STEPS):
            if stop():
                return None
            if offset == 0:  # the first stream has no tokens before its part
                state = reset_state(state, np.arange(num_streams) == 0)
            places = starts + np.arange(offset, min(offset + BLOCK_STEPS, length))
            counted = (places >= starts) & (places < len(ids))
            places = places.clip(0, len(ids) - 1)
            outputs, state = model.read(torch.from_numpy(tokens[places]).to(device), state)
            if offset >= 0 and counted.any():
                targets = torch.from_numpy(tokens[places + 1][counted]).to(device)
                for nats in _part_losses(model, outputs[torch.from_numpy(counted).to(device)], targets):
                    total += nats
    finally:
        model.train(was_training)
    return total / len(ids)


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
