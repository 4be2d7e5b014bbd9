"""Where a training stands, in figures."""

import math
from dataclasses import asdict, dataclass


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
