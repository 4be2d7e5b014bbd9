"""N-gram model of a training text, and its weight beside a network.

Shapes: N number of tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from charlm.config import TrainConfig
from charlm.engine.ngram import NGram
from charlm.engine.ngram_builder import Sequences, fit
from charlm.engine.predictor import START
from charlm.errors import ConfigError
from charlm.text.ids import Ids
from charlm.training.dataset import Dataset
from charlm.training.items import Items
from charlm.training.recipe import SHORT_TEXT

MAX_COUNTED_CHARS, MAX_COUNTED_WORDS = 6_000_000, 4_000_000
"""Maximum number of tokens whose n-grams are counted. It limits time, to about 7 s, and memory, so that a training on a
text of any size stays below 600 MB. From a longer text, parts are taken."""

COUNTED_PARTS = 64
"""Number of evenly spaced parts that are taken from a longer text."""

ORDER_TOKENS = 2**17
"""Maximum number of validation tokens on which the order is chosen."""

MAX_VALIDATION_TOKENS = 500_000
"""Maximum number of tokens of a validation, from the beginning of the validation text."""

MAX_CHAR_ORDER, MAX_WORD_ORDER = 10, 5
"""Maximum order that is chosen automatically."""

DEFAULT_CHAR_ORDER, DEFAULT_WORD_ORDER = 7, 3
"""Order without a validation text."""

REPEATED_CHARS, REPEATED_WORDS = 7, 4
"""Order from which an n-gram must occur twice. Tiny Shakespeare, order 9: the loss of the counts is 1.522 with all
n-grams (12.0 MB), 1.505 without those of order 7 and more that occur once (2.9 MB); together with a network, 1.394 and
1.397."""

MIN_GAIN = 0.001
"""Reduction of the validation loss, in nats per token, below which a model is stored without its n-grams."""

WEIGHT_DIGITS = 4
"""Number of decimal digits of a weight."""

MEGABYTE = 10**6

Nats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """N-gram model of a training text, if it is wanted.

    Attributes:
        ngram: The model.
        notes: Sentence for the user about its size and its loss.
    """

    ngram: NGram | None = None
    notes: tuple[str, ...] = ()


def wants_counts(settings: Mapping[str, Any], dataset: Dataset) -> bool:
    """Return whether a network gets an n-gram model beside it.

    By default, it does if there is a validation text to choose the weight on, unless the training text is so short that
    it is meant to be memorised.

    Args:
        settings: Settings by field name; None for those not given.
        dataset: The texts.

    Raises:
        ConfigError: If an n-gram model is wanted, and there is no validation text.
    """
    given = [name for name in ("ngram", "ngram_order", "ngram_size") if settings.get(name)]
    if settings.get("ngram") is False or not (given or len(dataset.val_ids)):
        return False
    if not len(dataset.val_ids):
        raise ConfigError(
            f"{given[0]}: the weight of the n-gram model is chosen on text that is not trained on, and there is none: "
            "set val_fraction or `validation`, or omit it",
            fields=[given[0], "val_fraction", "validation"],
        )
    return bool(given) or dataset.num_train_tokens >= SHORT_TEXT


def count_ngrams(dataset: Dataset, settings: Mapping[str, Any], default_size: float = TrainConfig.ngram_size) -> Counts:
    """Return the n-gram model of a training text, or of the items of a list.

    Args:
        dataset: The texts.
        settings: `ngram_order` and `ngram_size`, by field name; None for those not given.
        default_size: Maximum size in MB if `ngram_size` is not given.
    """
    start_id = int(dataset.tokenizer.encode(START)[0])
    words = dataset.tokenizer.kind == "word"
    order = settings.get("ngram_order")
    size = settings.get("ngram_size") or default_size
    text, validation = _training_sequences(dataset, start_id), None
    if order is None and len(dataset.val_ids):
        validation = validation_sequences(dataset, start_id, ORDER_TOKENS)
    default_order = DEFAULT_WORD_ORDER if words else DEFAULT_CHAR_ORDER
    fitted = fit(
        text,
        dataset.tokenizer.vocab_size,
        max_order=order or (default_order if validation is None else MAX_WORD_ORDER if words else MAX_CHAR_ORDER),
        max_bytes=size * MEGABYTE,
        repeated_order=REPEATED_WORDS if words else REPEATED_CHARS,
        validation=validation,
    )
    model = fitted.model
    counted = "" if model.num_ngrams == fitted.num_counted else f" of {fitted.num_counted:,}"
    note = f"n-grams: order {model.order}, {model.num_ngrams:,}{counted} kept, {model.num_bytes / MEGABYTE:.1f} MB"
    if len(text.ids) < dataset.num_train_tokens:
        note += f", in {len(text.ids):,} of {dataset.num_train_tokens:,} tokens"
    if validation is not None:
        loss = float(validation.nats(model).mean(dtype=np.float64))
        note += f"; validation loss {loss:.3f} nats"
    return Counts(ngram=model, notes=(note,))


def best_weight(network_nats: Nats, ngram_nats: Nats) -> float:
    """Return the weight of an n-gram model with which its mixture with a network has the lowest loss.

    The loss is a convex function of the weight, so that the weight is found by bisection of its derivative. The result
    is 0 if the loss falls by less than `MIN_GAIN`.

    Args:
        network_nats: Loss of the network at each token, (N,), in nats.
        ngram_nats: That of the n-gram model.
    """
    network, ngram = _probs(network_nats, ngram_nats)
    difference = ngram - network
    low, high = 0.0, 1.0
    while high - low > 0.1**WEIGHT_DIGITS / 2:
        middle = (low + high) / 2
        if (difference / (network + middle * difference)).sum() > 0:
            low = middle
        else:
            high = middle
    weight = round((low + high) / 2, WEIGHT_DIGITS)
    gain = float(network_nats.mean(dtype=np.float64)) - interpolated_nats(network_nats, ngram_nats, weight)
    return weight if gain >= MIN_GAIN else 0.0


def interpolated_nats(network_nats: Nats, ngram_nats: Nats, weight: float) -> float:
    """Return the mean loss of a mixture in nats per token.

    Args:
        network_nats: Loss of the network at each token, (N,), in nats.
        ngram_nats: That of the n-gram model.
        weight: Weight of the n-gram model.
    """
    return float(interpolated_token_nats(network_nats, ngram_nats, weight).mean())


def interpolated_token_nats(network_nats: Nats, ngram_nats: Nats, weight: float) -> npt.NDArray[np.float64]:
    """Return the loss of a mixture at each token, (N,), in nats; see `interpolated_nats`."""
    network, ngram = _probs(network_nats, ngram_nats)
    nats: npt.NDArray[np.float64] = -np.log((1 - weight) * network + weight * ngram)
    return nats


def _probs(*nats: Nats) -> tuple[npt.NDArray[np.float64], ...]:
    """Return the probabilities whose negative logarithms these are."""
    return tuple(np.exp(-part.astype(np.float64)) for part in nats)


def text_sequence(ids: Ids, start_id: int) -> Sequences:
    """Return a text, (N,), after the start token."""
    return Sequences(ids=np.concatenate([np.array([start_id], dtype=ids.dtype), ids]))


def item_sequences(items: Items, start_id: int) -> Sequences:
    """Return the items of a list, each after the start token."""
    gathered = items.gathered()
    starts = gathered.starts + np.arange(len(items))
    return Sequences(ids=np.insert(gathered.ids, gathered.starts, start_id), starts=starts.astype(np.intp))


def validation_sequences(dataset: Dataset, start_id: int, num_tokens: int) -> Sequences:
    """Return up to `num_tokens` tokens of the validation text, or of the validation items of a list."""
    if dataset.items is None:
        return text_sequence(dataset.val_ids[:num_tokens], start_id)
    return item_sequences(dataset.items.validation.first(num_tokens), start_id)


def _training_sequences(dataset: Dataset, start_id: int) -> Sequences:
    """Return the training text, or the items of a list; evenly spaced parts of a text that is too long."""
    max_tokens = MAX_COUNTED_WORDS if dataset.tokenizer.kind == "word" else MAX_COUNTED_CHARS
    if dataset.items is not None:
        return item_sequences(dataset.items.train.first(max_tokens), start_id)
    ids = dataset.train_ids
    if len(ids) <= max_tokens:
        return text_sequence(ids, start_id)
    length = max_tokens // COUNTED_PARTS
    begins = np.linspace(0, len(ids) - length, COUNTED_PARTS).astype(np.int64)
    return Sequences(
        ids=np.concatenate([ids[begin : begin + length] for begin in begins]),
        starts=np.arange(COUNTED_PARTS, dtype=np.intp) * length,
    )
