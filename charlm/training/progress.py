"""Progress of a training, as numbers."""

import math
from dataclasses import asdict, dataclass

from charlm.engine.scores import perplexity

NGRAM_METRICS = ("val_nats_network", "val_nats_ngram", "ngram_weight")
"""Metrics of a validation of a network and an n-gram model."""

OPTIONAL_METRICS = ("sample_nats", "val_nats_adaptive", *NGRAM_METRICS)
"""Metrics that only some reports have."""


@dataclass(frozen=True, kw_only=True)
class LossUnits:
    """Conversion of a loss in nats per token to bits per character.

    Attributes:
        chars_per_token: Mean number of characters per token; 1 for characters.
        spelling_nats: Mean cost of the spelling of unknown tokens, in nats per token. It is added to the loss.
    """

    chars_per_token: float = 1.0
    spelling_nats: float = 0.0

    def bits_per_char(self, nats_per_token: float) -> float:
        """Return a loss in bits per character, including the spelling of unknown tokens."""
        return (nats_per_token + self.spelling_nats) / math.log(2) / self.chars_per_token


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a training.

    Attributes:
        step: Number of updates.
        epoch: Number of passes over the training text.
        seconds: Time used, in seconds.
        fraction: Share of the training that is done, from 0 to 1.
        train_nats: Mean loss of the updates since the last line of the log, in nats per token; NaN before the first
            update. It includes dropout, and the weights change from update to update.
        val_nats: Validation loss in nats per token; None unless this is the report of a validation.
        best_nats: Lowest validation loss so far, in nats per token.
        tokens_per_second: Speed since the training began or was resumed.
        learning_rate: Learning rate of the last update.
        val_nats_network: Validation loss of the network alone; None if there is no n-gram model.
        val_nats_ngram: Validation loss of the n-gram model alone.
        ngram_weight: Weight of the n-gram model in the mixture.
        val_nats_adaptive: Validation loss of the model if it adapts to the text that it reads; None unless this is the
            validation of the best model so far.
        sample_nats: Loss of the best network on a sample of the training text, in nats per token; None before the end.
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
    val_nats_network: float | None = None
    val_nats_ngram: float | None = None
    ngram_weight: float | None = None
    val_nats_adaptive: float | None = None
    sample_nats: float | None = None

    def to_metrics(self, units: LossUnits) -> dict[str, float | None]:
        """Return all values by name, for the log and for model files, and the validation loss in other units.

        Args:
            units: Conversion to bits per character for the validation text.
        """
        nats = self.val_nats
        left_out = {"sample_nats"} | {name for name in OPTIONAL_METRICS if getattr(self, name) is None}
        return {name: value for name, value in asdict(self).items() if name not in left_out} | {
            "train_nats": None if math.isnan(self.train_nats) else self.train_nats,
            "val_bits_per_char": None if nats is None else units.bits_per_char(nats),
            "val_perplexity": None if nats is None else perplexity(nats),
        }
