"""Shares out a training's budget: when it validates, reports and ends, and its learning rate on the way."""

import math

from charlm.config import TrainConfig
from charlm.training.batches import StreamBatches
from charlm.training.stopwatch import Stopwatch

FINAL_RATE = 0.02
"""The share of the peak learning rate at the end of the cosine."""

VALIDATIONS, PATIENT_VALIDATIONS = 10, 40
"""Validations in a training, evenly spread over its budget; and in one that they may end."""

VALIDATION_COST = 40
"""Between two validations, the one at the end included, lies so many times the time that one takes."""

LEARNING_COST = 3
"""Where no clock decides, tokens stand for time: one that is learnt takes so many times what one that is validated
takes (measured, 1 x 256 in bf16)."""

VALIDATION_SHARE = 0.1
"""In a training by the clock, a validation takes no more of the budget than this: it reads less, if need be."""

REPORTS = 100
"""Lines of the log in a training, evenly spread over its budget."""


def learning_rate(config: TrainConfig, fraction: float) -> float:
    """The rate at a point of the budget, 0 to 1: a linear rise, then a cosine down to `FINAL_RATE` of the peak."""
    if fraction < config.warmup:
        return config.learning_rate * max(fraction / config.warmup, FINAL_RATE)
    fall = min(1.0, (fraction - config.warmup) / max(1e-9, 1 - config.warmup))
    return config.learning_rate * (FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * fall)) / 2)


def _next_of(times: float, fraction: float) -> float:
    """The first of so many points, evenly spread over a budget, behind a point of it."""
    return math.floor(fraction * times + 1) / times


class Schedule:
    """How far a training is, and what is due there.

    By the clock the time decides; elsewhere only updates and tokens do, so that the same command makes the same model.

    Args:
        config: With one of minutes, epochs and steps.
        watch: Reads the time used.
        batches: What is learnt.
        num_validated: Tokens of the validation text.
    """

    def __init__(self, config: TrainConfig, watch: Stopwatch, batches: StreamBatches, num_validated: int) -> None:
        self._watch = watch
        self._seconds = None if config.minutes is None else 60 * config.minutes
        self._steps = config.steps
        if config.epochs is not None:
            self._steps = math.ceil(config.epochs * batches.steps_per_epoch)
        self._validations = self._bearable(config, batches.tokens_per_step, num_validated)
        self._val_seconds = self._validated_at = 0.0

    def _bearable(self, config: TrainConfig, tokens_per_step: int, num_validated: int) -> float:
        """The validations that the budget bears, spread evenly; by the clock the most that there may be."""
        if config.patience is not None:
            return PATIENT_VALIDATIONS
        if self._steps is None or not num_validated:
            return VALIDATIONS
        return min(VALIDATIONS, LEARNING_COST * tokens_per_step * self._steps / (VALIDATION_COST * num_validated))

    def fraction(self, step: int) -> float:
        """The part of the budget that is used after `step` updates; may pass 1 a little in a training by the clock."""
        if self._seconds is not None:
            return self._watch.read() / max(1e-3, self._seconds - self._val_seconds)
        assert self._steps is not None, "the plan sets a budget"
        return step / self._steps

    def next_report(self, fraction: float) -> float:
        """The part of the budget at which the next line of the log is due."""
        return _next_of(REPORTS, fraction)

    def next_validation(self, fraction: float) -> float:
        """The part of the budget at which the next validation is due."""
        return _next_of(self._validations, fraction)

    def bears_validation(self) -> bool:
        """Whether a validation that is due is far enough from those before and behind it; always, without a clock."""
        if self._seconds is None:
            return True
        now = self._watch.read()
        return min(now - self._validated_at, self._seconds - now) >= VALIDATION_COST * self._val_seconds

    def validated(self, seconds: float) -> None:
        """Take down that a validation takes so long: the last one, which comes when all else is done, will too."""
        self._val_seconds, self._validated_at = seconds, self._watch.read()

    def tokens_to_validate(self, seconds: float) -> int:
        """The tokens that a validation by the clock may read, at so many seconds each."""
        assert self._seconds is not None, "a clock decides"
        return int(VALIDATION_SHARE * self._seconds / seconds)
