"""Where a training stands, in figures, and what the learning rate is there."""

import math
from dataclasses import asdict, dataclass

from charlm.config import TrainConfig

FINAL_RATE = 0.02
"""The share of the peak learning rate at the end of the cosine."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a training stands.

    Attributes:
        step: Updates made.
        epoch: Passes over the text.
        seconds: Time used, in seconds.
        fraction: The part of the budget used, 0 to 1.
        train_nats: Training loss since the last line of the log, nats a token; not a number before the first update.
        val_nats: Validation loss, nats a token; None if this is no validation.
        best_nats: The best validation loss so far.
        tokens_per_second: Speed since training began or was resumed.
        learning_rate: Of the last update.
    """

    step: int
    epoch: float
    seconds: float
    fraction: float
    train_nats: float
    val_nats: float | None
    best_nats: float | None
    tokens_per_second: float
    learning_rate: float

    def figures(self, chars_per_token: float) -> dict[str, float | None]:
        """All of this for the log and the model file, with the validation loss in its other units."""
        nats = self.val_nats
        return asdict(self) | {
            "train_nats": None if math.isnan(self.train_nats) else self.train_nats,
            "val_bits_per_char": None if nats is None else nats / math.log(2) / chars_per_token,
            "val_perplexity": None if nats is None else perplexity(nats),
        }


def perplexity(nats: float) -> float:
    """Of a token that costs so much on average; infinite where it is beyond a float."""
    return math.exp(nats) if nats < 700 else math.inf


def learning_rate(config: TrainConfig, fraction: float) -> float:
    """The rate at a point of the budget, 0 to 1: a linear rise, then a cosine down to `FINAL_RATE` of the peak."""
    if fraction < config.warmup:
        return config.learning_rate * max(fraction / config.warmup, FINAL_RATE)
    fall = min(1.0, (fraction - config.warmup) / max(1e-9, 1 - config.warmup))
    return config.learning_rate * (FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * fall)) / 2)
