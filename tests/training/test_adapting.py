"""Fit of the adaptive part: the same predictions as when reading, and a lower loss."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from charlm.engine.adaptive import COUNT_CLASSES, FOLLOWER_CLASSES, Adaptation, Memory
from charlm.training.adapting import adaptive_loss, fit, predictions

LENGTHS = (0, 1, 3)
GAINS = np.random.default_rng(2).uniform(0, 0.9, (len(LENGTHS), COUNT_CLASSES, FOLLOWER_CLASSES)).astype(np.float32)
ADAPTATION = Adaptation(LENGTHS, GAINS)


@given(text=st.lists(st.integers(0, 3), min_size=1, max_size=80))
def test_the_loss_is_that_of_reading_the_text(text: list[int]) -> None:
    ids = np.array([2, *text])
    nats = np.linspace(0.1, 3, len(text))
    keep, add = Memory(ADAPTATION, 4, ids[:1]).read(ids[1:])
    expected = -np.log(keep * np.exp(-nats) + add).mean()
    assert abs(adaptive_loss(nats, predictions(ids, LENGTHS), ADAPTATION) - expected) < 1e-9


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
