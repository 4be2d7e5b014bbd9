"""Training of a model without a network: the n-grams of a text are counted once. This does not need PyTorch."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from charlm.config import NGRAM_CELL, ModelConfig, TokenizerConfig, TrainConfig
from charlm.engine.adaptive import Adaptation
from charlm.engine.checkpoint import Checkpoint, NGramPart, save_checkpoint
from charlm.engine.ngram import NGram
from charlm.engine.predictor import START
from charlm.engine.runs import Run
from charlm.errors import ConfigError
from charlm.text.items import NO_ITEMS
from charlm.training.adapting import adaptive_loss, fit, predictions
from charlm.training.counting import MAX_VALIDATION_TOKENS, count_ngrams, validation_sequences
from charlm.training.dataset import Dataset, read_dataset
from charlm.training.kept_text import keep_text
from charlm.training.launch import rank_and_count
from charlm.training.progress import LossUnits, Progress
from charlm.training.recipe import SIZE_ALONE
from charlm.training.request import Request
from charlm.training.texts import COUNTING, READING, check_name, describe, open_texts

SETTINGS = (
    *(spec.name for spec in fields(TokenizerConfig)),
    *("cell", "ngram", "ngram_order", "ngram_size", "val_fraction", "items", "seed", "threads"),
)
"""Settings that a model without a network has."""


@dataclass(frozen=True, kw_only=True)
class TrainedNGrams:
    """Trained model without a network.

    Attributes:
        run: Its run.
        progress: Progress at the end, without updates.
        units: Conversion of the loss to bits per character.
        notes: Sentences for the user.
    """

    run: Run
    progress: Progress
    units: LossUnits
    notes: tuple[str, ...]


def train_ngrams(request: Request, announce: Callable[[str], None] = lambda part: None) -> TrainedNGrams:
    """Count the n-grams of a text, and write the model.

    Args:
        request: Texts and settings of the training; its cell is `NGRAM_CELL`.
        announce: Called at the beginning of each part, with its description.

    Raises:
        CharlmError: Of any kind, if the request cannot be fulfilled.
    """
    settings = {name: value for name, value in request.settings.items() if value is not None}
    _check(request, settings)
    check_name(request, None)
    announce(READING)
    with open_texts(request, settings) as sources:
        dataset = read_dataset(sources, TokenizerConfig.pick(settings))
        announce(COUNTING)
        counts = count_ngrams(dataset, settings, SIZE_ALONE)
        assert counts.ngram is not None, "the n-grams are counted"
        nats, adaptation, adaptive_nats = _validate(dataset, counts.ngram)
        progress = _progress(request, dataset, nats, adaptive_nats)
        default_name = request.default_name or sources.corpus.name
        with Run.create(request.name, default_name, force=request.force) as run:
            notes = (*sources.notes(), *dataset.notes(), *counts.notes, *keep_text(run, sources, None))
            metadata = {
                **describe(request, sources, dataset),
                "training": _settings_used(settings, dataset, counts.ngram),
                "metrics": progress.to_metrics(dataset.loss_units),
            }
            save_checkpoint(run.model, _checkpoint(dataset, counts.ngram, adaptation, metadata))
            run.append_log(progress.to_metrics(dataset.loss_units))
    return TrainedNGrams(run=run, progress=progress, units=dataset.loss_units, notes=notes)


def _check(request: Request, settings: Mapping[str, Any]) -> None:
    """Refuse settings that are out of range, and those of networks.

    Raises:
        ConfigError: If there are any.
    """
    TokenizerConfig.pick(settings)
    TrainConfig.pick(settings)
    given = [name for name in settings if name not in SETTINGS]
    given += [name for name in ("glove", "pretrained") if getattr(request, name) is not None]
    if request.hardware.device != "auto":
        given.append("device")
    if given:
        raise ConfigError(
            f"cell {NGRAM_CELL} has no network, so that nothing is updated: omit {' and '.join(given)}",
            fields=["cell", *given],
        )
    if settings.get("ngram") is False:
        raise ConfigError(f"cell {NGRAM_CELL} has nothing but n-grams, which are switched off", fields=["cell"])
    if request.validation and settings.get("val_fraction"):
        raise ConfigError(
            "validation and val_fraction contradict each other: set only one of them",
            fields=["validation", "val_fraction"],
        )
    if rank_and_count()[1] > 1:
        raise ConfigError(f"cell {NGRAM_CELL} is trained by one process: start it without torchrun", fields=["cell"])


def _validate(dataset: Dataset, ngram: NGram) -> tuple[float | None, Adaptation | None, float | None]:
    """Return the validation loss, the constants of the adaptive part, and the loss with it; None without a text.

    The items of a list have no order, so that the adaptive part is not fitted to them.
    """
    if not len(dataset.val_ids):
        return None, None, None
    start_id = int(dataset.tokenizer.encode(START)[0])
    validation = validation_sequences(dataset, start_id, MAX_VALIDATION_TOKENS)
    token_nats = validation.nats(ngram)
    nats = float(token_nats.mean(dtype=np.float64))
    if dataset.items is not None:
        return nats, None, None
    default = Adaptation.default(dataset.tokenizer.kind)
    found = predictions(validation.ids, default.context_lengths)
    adaptation = fit(token_nats, found, default)
    return nats, adaptation, adaptive_loss(token_nats, found, adaptation)


def _progress(request: Request, dataset: Dataset, nats: float | None, adaptive_nats: float | None) -> Progress:
    """Return the progress at the end, with the validation losses if there is a validation text."""
    seconds = time.monotonic() - request.hardware.started
    return Progress(
        step=0,
        epoch=1.0,
        seconds=seconds,
        fraction=1.0,
        train_nats=math.nan,
        val_nats=nats,
        best_nats=nats,
        tokens_per_second=dataset.num_train_tokens / max(seconds, 1e-9),
        learning_rate=0.0,
        val_nats_adaptive=adaptive_nats,
    )


def _settings_used(settings: Mapping[str, Any], dataset: Dataset, ngram: NGram) -> dict[str, Any]:
    """Return the settings of the training for the metadata."""
    return {
        "ngram_order": ngram.order,
        "ngram_size": settings.get("ngram_size", SIZE_ALONE),
        "val_fraction": dataset.val_fraction,
        "items": NO_ITEMS if dataset.items is None else dataset.items.form.kind,
        "seed": settings.get("seed", TrainConfig.seed),
    }


def _checkpoint(dataset: Dataset, ngram: NGram, adaptation: Adaptation | None, metadata: dict[str, Any]) -> Checkpoint:
    return Checkpoint(
        config=ModelConfig(vocab_size=dataset.tokenizer.vocab_size, cell=NGRAM_CELL),
        tokenizer=dataset.tokenizer,
        tensors={},
        counts=NGramPart(ngram=ngram, weight=1.0),
        adaptation=adaptation,
        spelling=dataset.spelling,
        metadata=metadata,
    )
