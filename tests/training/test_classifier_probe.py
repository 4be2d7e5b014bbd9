import numpy as np
import pytest

from charlm.training.classifier_probe import _fit, fit_probe


def test_the_output_layer_is_at_the_minimum_of_its_loss(rng: np.random.Generator) -> None:
    inputs, labels = rng.normal(size=(60, 4)), rng.integers(3, size=60)
    weight, bias = _fit(inputs, labels, 3, 0.5)

    def loss(weight: np.ndarray) -> float:
        logits = inputs @ weight.T + bias
        nats = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(60), labels]
        return float(nats.sum() + (weight**2).sum() / (2 * 0.5))

    best = loss(weight)
    for index in np.ndindex(*weight.shape):
        for change in (-0.01, 0.01):
            other = weight.copy()
            other[index] += change
            assert loss(other) > best


def test_scaled_inputs_give_the_same_classifier(rng: np.random.Generator) -> None:
    labels = rng.integers(2, size=80)
    states = rng.normal(size=(80, 9)).astype(np.float32)
    states[:, 4] += labels
    plain, scaled = fit_probe(states, labels, 2), fit_probe(10 * states + 3, labels, 2)
    first = states @ plain.weight.T + plain.bias
    second = (10 * states + 3) @ scaled.weight.T + scaled.bias
    np.testing.assert_allclose(first - first.mean(1, keepdims=True), second - second.mean(1, keepdims=True), atol=1e-3)
    assert not plain.weight[:, :3].any()
    assert ((first[:, 1] > first[:, 0]) == labels).mean() > 0.6
    assert plain.held_out.shape == (80, 2)


def test_labels_without_a_pattern_leave_the_shares_of_the_classes(rng: np.random.Generator) -> None:
    labels = (rng.random(100) < 0.8).astype(int)
    probe = fit_probe(rng.normal(size=(100, 6)).astype(np.float32), labels, 2)
    shares = 1 / (1 + np.exp(probe.held_out[:, 0] - probe.held_out[:, 1]))
    assert shares.mean() == pytest.approx(labels.mean(), abs=0.03)
