"""Fit of the adaptive part: the same predictions as when reading, and a lower loss."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.engine.adaptive import COUNT_CLASSES, FOLLOWER_CLASSES, Adaptation, Memory
from charlm.engine.adaptive_predictor import AdaptivePredictor
from charlm.engine.checkpoint import load_checkpoint
from charlm.engine.mixture import open_predictor
from charlm.engine.runs import Run
from charlm.training.adapting import adaptive_loss, fit, predictions
from charlm.training.ngram_training import train_ngrams
from charlm.training.request import Hardware
from charlm.training.setup import prepare_new, run
from tests.training.test_counting import LONG, SETTINGS
from tests.training.test_items import NAMES
from tests.training.test_setup import ONE_THREAD, request

LENGTHS = (0, 1, 3)
GAINS = np.random.default_rng(2).uniform(0, 0.9, (len(LENGTHS), COUNT_CLASSES, FOLLOWER_CLASSES)).astype(np.float32)
ADAPTATION = Adaptation(LENGTHS, GAINS)


@given(text=st.lists(st.integers(0, 3), min_size=1, max_size=80))
def test_the_loss_is_that_of_reading_the_text(text: list[int]) -> None:
    ids = np.array([2, *text])
    nats = np.linspace(0.1, 3, len(text))
    keep, add = Memory(ADAPTATION, 4, ids[:1]).read(ids[1:])
    expected = -np.log(keep * np.exp(-nats) + add).mean()
    assert abs(adaptive_loss(nats, predictions(ids, LENGTHS), ADAPTATION) - expected) < 1e-6


def test_fitted_gains_are_better_than_others() -> None:
    rng = np.random.default_rng(1)
    words = rng.integers(0, 20, (60, 5))
    ids = np.concatenate([[0], words[rng.integers(0, 60, 1500)].ravel()])
    nats, found = np.full(len(ids) - 1, np.log(20)), predictions(ids, LENGTHS)
    fitted = fit(nats, found, ADAPTATION)
    best = adaptive_loss(nats, found, fitted)
    assert best < adaptive_loss(nats, found, ADAPTATION) - 0.1
    assert best < adaptive_loss(nats, found, Adaptation(LENGTHS, np.full_like(GAINS, 0.5)))
    for change in (-0.05, 0.05):
        moved = Adaptation(LENGTHS, np.clip(fitted.gains + np.float32(change), 0, 0.99))
        assert best < adaptive_loss(nats, found, moved)


def test_a_short_text_hardly_changes_the_defaults() -> None:
    ids = np.array([0, 1, 2, 1])
    default = Adaptation.default("word")
    fitted = fit(np.ones(3), predictions(ids, default.context_lengths), default)
    assert np.abs(fitted.gains - default.gains).max() < 0.2


def trained(**settings: Any) -> Run:
    Path("play.txt").write_text(LONG, encoding="utf-8")
    made, _ = run(request("play.txt", settings={**SETTINGS, **settings}, hardware=ONE_THREAD, name="mine", force=True))
    return made


@pytest.mark.parametrize("settings", [{}, {"ngram": False}, {"tokenizer": "word"}])
def test_a_training_fits_the_adaptive_part_to_the_validation_text(settings: dict[str, Any]) -> None:
    made = trained(**settings)
    checkpoint = load_checkpoint(made.model)
    metrics, adaptation = checkpoint.metadata["metrics"], checkpoint.adaptation
    assert adaptation is not None
    default = Adaptation.default(checkpoint.tokenizer.kind)
    assert adaptation.context_lengths == default.context_lengths
    with prepare_new(request("play.txt", settings={**SETTINGS, **settings}), dry_run=True) as training:
        held_out = training.dataset.val_ids
    ids = np.concatenate([checkpoint.tokenizer.encode("\n"), held_out])
    loss = {
        name: float(AdaptivePredictor(open_predictor(checkpoint), constants).score([ids]).nats.mean())
        for name, constants in (("fitted", adaptation), ("default", default))
    }
    assert loss["fitted"] == pytest.approx(metrics["val_nats_adaptive"], abs=2e-3)
    assert metrics["val_nats_adaptive"] < metrics["val_nats"]
    assert loss["fitted"] < loss["default"]
    saved = load_checkpoint(made.last).adaptation
    assert saved is not None
    np.testing.assert_array_equal(saved.gains, adaptation.gains)


def test_a_list_has_no_constants() -> None:
    Path("names.txt").write_text("\n".join(NAMES * 12) + "\n", encoding="utf-8")
    made, _ = run(request("names.txt", settings={**SETTINGS, "items": "line"}, hardware=ONE_THREAD, name="list"))
    assert load_checkpoint(made.model).adaptation is None


def test_a_model_of_ngrams_gets_constants_too() -> None:
    Path("play.txt").write_text(LONG, encoding="utf-8")
    made = train_ngrams(request("play.txt", settings={"cell": "ngram"}, name="counts", hardware=Hardware()))
    checkpoint = load_checkpoint(made.run.model)
    metrics, text = checkpoint.metadata["metrics"], checkpoint.tokenizer.encode("\n" + LONG[-1000:])
    assert checkpoint.adaptation is not None
    assert metrics["val_nats_adaptive"] == made.progress.val_nats_adaptive < metrics["val_nats"]
    adaptive = AdaptivePredictor(open_predictor(checkpoint), checkpoint.adaptation)
    assert np.isfinite(adaptive.score([text]).nats).all()
