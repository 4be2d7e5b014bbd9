"""Schedule of a training: its learning rate, its end, and the times of validations and reports.

Everything depends on the fraction of the training that is done, from 0 to 1. If the training is limited by minutes, it
is the fraction of the time. Otherwise it is the fraction of the updates, so that the same command makes the same model.
"""

import math
from typing import Protocol

from charlm.config import TrainConfig
from charlm.training.batches import Batches
from charlm.training.stopwatch import Stopwatch

FINAL_RATE = 0.02
"""Final learning rate as a share of the peak."""

MAX_VALIDATIONS = 10
"""Maximum number of validations, which are evenly spaced."""

PATIENT_VALIDATIONS = 40
"""Number of validations of a training that ends when its validation loss stops falling. The validations decide when."""

VALIDATION_DISTANCE = 40
"""Minimum distance between two validations, or between a validation and the end, as a multiple of the duration of a
validation."""

TRAINING_COST = 3
"""Time to train on a token, as a multiple of the time to validate on a token (measured: 1 x 256, bf16). It is used
instead of measured times if the training is not limited by minutes."""

EARLY_TOKENS = 4
"""Number of tokens that a fine-tuning trains on before its first early validation, per token of a validation."""

MAX_VALIDATION_SHARE = 0.1
"""Maximum duration of a validation, as a share of the time limit. A validation that takes longer reads less text."""

NUM_REPORTS = 100
"""Number of lines of the log, which are evenly spaced."""

MIN_UPDATES = 5
"""Minimum number of updates of a training with a time limit. It exceeds its limit to make them."""


class RateConfig(Protocol):
    """Settings of the learning rate: peak, and share of the training during which it rises."""

    @property
    def learning_rate(self) -> float:
        """Peak learning rate."""
        ...

    @property
    def warmup(self) -> float:
        """Share of the training during which the learning rate rises to its peak."""
        ...


def learning_rate(config: RateConfig, fraction: float) -> float:
    """Return the learning rate: linear warm-up, then a cosine decay to `FINAL_RATE` of the peak.

    Args:
        config: Peak learning rate and warm-up.
        fraction: Share of the training that is done, from 0 to 1.
    """
    if fraction < config.warmup:
        return config.learning_rate * max(fraction / config.warmup, FINAL_RATE)
    decay_done = min(1.0, (fraction - config.warmup) / max(1e-9, 1 - config.warmup))
    return config.learning_rate * (FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * decay_done)) / 2)


def _next_multiple(count: float, fraction: float) -> float:
    """Return the smallest multiple of 1 / count that is above a fraction."""
    return math.floor(fraction * count + 1) / count


class Schedule:
    """Share of a training that is done, and the times of its validations and reports.

    Args:
        config: Settings of the training. One of minutes, epochs and steps is set.
        watch: Stopwatch with the time used.
        batches: Batches of the training text.
        num_val_tokens: Number of tokens of the validation text.
    """

    def __init__(self, config: TrainConfig, watch: Stopwatch, batches: Batches, num_val_tokens: int) -> None:
        self._watch = watch
        self._seconds = None if config.minutes is None else 60 * config.minutes
        self._steps = config.steps
        if config.epochs is not None:
            self._steps = math.ceil(config.epochs * batches.steps_per_epoch)
        self._validations = self._num_validations(config, batches.tokens_per_step, num_val_tokens)
        self._tokens_per_step, self._num_val_tokens = batches.tokens_per_step, num_val_tokens
        self._val_seconds = self._validated_at = 0.0
        self._reserved_seconds = 0.0

    def _num_validations(self, config: TrainConfig, tokens_per_step: float, num_val_tokens: int) -> float:
        """Return the number of validations, including the final one.

        If it is a fraction below 1, only the final validation takes place. With a time limit, it is the maximum.
        """
        if config.patience is not None:
            return PATIENT_VALIDATIONS
        if self._steps is None or not num_val_tokens:
            return MAX_VALIDATIONS
        affordable = TRAINING_COST * tokens_per_step * self._steps / (VALIDATION_DISTANCE * num_val_tokens)
        return min(MAX_VALIDATIONS, affordable)

    def fraction(self, step: int) -> float:
        """Return the share of the training that is done after `step` updates; slightly above 1 after a time limit.

        If a busy machine has used the time for something else, the first `MIN_UPDATES` updates are the training.
        """
        if self._seconds is not None:
            share = self._watch.read() / max(1e-3, self._seconds - self._val_seconds - self._reserved_seconds)
            return share if step >= MIN_UPDATES else min(share, step / MIN_UPDATES)
        assert self._steps is not None, "the plan sets a length"
        return step / self._steps

    def next_report(self, fraction: float) -> float:
        """Return the fraction at which the next line of the log is due."""
        return _next_multiple(NUM_REPORTS, fraction)

    def next_validation(self, fraction: float) -> float:
        """Return the fraction at which the next validation is due."""
        return _next_multiple(self._validations, fraction)

    def is_early_validation(self, step: int) -> bool:
        """Return whether a fine-tuning is validated after `step` updates in addition to the evenly spaced validations.

        A pretrained model may improve within few updates and then become worse, above all on a short text. Therefore,
        it is validated after 1, 2, 4, 8 and so on updates, as soon as a validation takes little time in comparison.
        """
        is_power_of_2 = step > 0 and step & (step - 1) == 0
        return is_power_of_2 and step * self._tokens_per_step >= EARLY_TOKENS * self._num_val_tokens

    def has_time_to_validate(self) -> bool:
        """Return True if the last validation and the end are far enough away; always True without a time limit."""
        if self._seconds is None:
            return True
        now = self._watch.read()
        return min(now - self._validated_at, self._seconds - now) >= VALIDATION_DISTANCE * self._val_seconds

    def record_validation(self, seconds: float) -> None:
        """Record the duration of a validation that has just ended. The final validation is expected to take as long."""
        self._val_seconds, self._validated_at = seconds, self._watch.read()

    def reserve(self, seconds: float) -> None:
        """Keep some of the time limit for what follows the final validation."""
        self._reserved_seconds = seconds

    def max_validation_tokens(self, seconds_per_token: float) -> int:
        """Return the maximum number of tokens of a validation in a training with a time limit."""
        assert self._seconds is not None, "there is a time limit"
        return int(MAX_VALIDATION_SHARE * self._seconds / seconds_per_token)
