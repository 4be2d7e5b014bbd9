import numpy as np
import pytest

from charlm.engine.combination import combine, fit_weights, log_loss


def test_fitted_weights_are_at_the_minimum(rng: np.random.Generator) -> None:
    labels = rng.integers(3, size=400)
    parts = [rng.normal(size=(400, 3)) + scale * np.eye(3)[labels] for scale in (2.0, 0.5, 0.0)]
    weights = fit_weights(parts, labels)
    best = log_loss(combine(parts, weights), labels)
    for index in range(3):
        for change in (-0.02, 0.02):
            other = [weight + change * (place == index) for place, weight in enumerate(weights)]
            if other[index] >= 0:
                assert log_loss(combine(parts, other), labels) > best


def test_weights_are_never_negative(rng: np.random.Generator) -> None:
    labels = rng.integers(2, size=100)
    wrong = -np.eye(2)[labels]
    assert fit_weights([wrong, np.eye(2)[labels] + rng.normal(size=(100, 2))], labels)[0] == 0


def test_few_texts_keep_the_expected_weights(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(4, 2))
    labels = rng.integers(2, size=4)
    assert fit_weights([logits, logits[::-1]], labels, [0.5, 0.1]) == pytest.approx([0.5, 0.1], abs=0.2)


def test_equal_logits_leave_no_trace() -> None:
    logits = np.zeros((5, 2))
    assert fit_weights([logits], np.zeros(5, dtype=int), [0.3]) == [0.3]
    np.testing.assert_allclose(np.exp(combine([logits], [1.0])), 0.5)


def test_a_perfect_loss_has_no_sign() -> None:
    log_probs = np.array([[1e-16, -40.0]])
    assert str(log_loss(log_probs, np.array([0]))) == "0.0"
    assert str(log_loss(np.array([[0.0, -40.0]]), np.array([0]))) == "0.0"
