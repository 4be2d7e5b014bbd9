"""Fit of the gate: its inputs and losses against plain implementations, and the fit against other coefficients."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from charlm.engine.adaptive import Adaptation
from charlm.engine.gate import Gate
from charlm.engine.kneser_ney import estimate
from charlm.training import gating
from charlm.training.counting import best_weight, interpolated_nats
from charlm.training.gating import GateFeatures, fit_gate, gated_nats
from charlm.training.validation import TextValidator

V, N = 7, 600


@pytest.fixture
def predicted(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, (N,), and their distributions by two models, (N, V): where one is sure, the other is not, or both are."""
    targets = rng.integers(V, size=N)
    kind = rng.integers(4, size=N)
    rows = []
    for knows in ((kind == 0) | (kind == 3), (kind == 1) | (kind == 3)):
        logits = rng.normal(0, 0.3, size=(N, V))
        logits[np.arange(N), np.where(rng.random(N) < 0.9, targets, rng.integers(V, size=N))] += 4 * knows
        probs = np.exp(logits)
        rows.append(probs / probs.sum(axis=1, keepdims=True))
    return targets, rows[0], rows[1]


def by_hand(coefficients: np.ndarray, targets: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The loss at each token by the formulas of `charlm.engine.gate`, token by token."""
    nats = []
    for token, p, q in zip(targets, first, second, strict=True):
        both = np.sqrt(p * q)
        features = np.array([1, -np.log(np.sum(p**2)), -np.log(np.sum(q**2)), -np.log(both.sum())])
        weights = np.exp(np.array([0, *(coefficients @ features)]))
        weights /= weights.sum()
        mixed = weights[0] * p + weights[1] * q + weights[2] * both / both.sum()
        nats.append(-np.log(mixed[token]))
    return np.array(nats)


def inputs(targets: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the losses and the features that a validation computes from these distributions."""
    features = -np.log([np.sum(first**2, axis=1), np.sum(second**2, axis=1), np.sqrt(first * second).sum(axis=1)])
    rows = np.arange(len(targets))
    numbers = -np.log(first[rows, targets]), -np.log(second[rows, targets]), features
    return tuple(part.astype(np.float32) for part in numbers)  # type: ignore[return-value]


def test_losses_and_mean_weight_are_those_of_the_formulas(
    predicted: tuple[np.ndarray, np.ndarray, np.ndarray], rng: np.random.Generator
) -> None:
    coefficients = rng.normal(0, 2, size=(2, 4))
    gate = Gate(coefficients)
    nats, weight = gated_nats(gate, *inputs(*predicted))
    np.testing.assert_allclose(nats, by_hand(coefficients, *predicted), rtol=1e-5)
    _, first, second = predicted
    found = gate.weights(np.sum(first**2, axis=1), np.sum(second**2, axis=1), np.sqrt(first * second).sum(axis=1))
    assert weight == pytest.approx(float((found[1] + found[2] / 2).mean()), abs=1e-5)


def test_the_fitted_gate_is_better_than_its_neighbours_and_than_a_constant_weight(
    predicted: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    network, ngram, features = inputs(*predicted)
    weight = best_weight(network, ngram)
    gate = fit_gate(network, ngram, features, weight)

    def penalised(coefficients: np.ndarray) -> float:
        penalty = (coefficients**2).sum() / (2 * gating.COEFFICIENT_DEVIATION**2) / N
        return float(by_hand(coefficients, *predicted).mean() + penalty)

    best = penalised(gate.coefficients)
    for place in np.ndindex(2, 4):
        for change in (-0.2, 0.2):
            other = gate.coefficients.copy()
            other[place] += change
            assert penalised(other) > best
    assert gated_nats(gate, network, ngram, features)[0].mean() < interpolated_nats(network, ngram, weight) - 0.05


def test_a_fit_to_some_of_many_tokens_is_nearly_as_good(
    predicted: tuple[np.ndarray, np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = inputs(*predicted)
    whole = gated_nats(fit_gate(*numbers, 0.5), *numbers)[0].mean()
    monkeypatch.setattr(gating, "FIT_TOKENS", 200)
    assert gated_nats(fit_gate(*numbers, 0.5), *numbers)[0].mean() < whole + 0.05


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_fit_can_begin_without_one_of_the_parts(
    predicted: tuple[np.ndarray, np.ndarray, np.ndarray], weight: float
) -> None:
    numbers = inputs(*predicted)
    expected = gated_nats(fit_gate(*numbers, 0.5), *numbers)[0].mean()
    assert gated_nats(fit_gate(*numbers, weight), *numbers)[0].mean() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("max_probs", [1, 50, 2**20])
def test_features_are_those_of_the_distributions(
    max_probs: int, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(gating, "MAX_PROBS", max_probs)
    ids = rng.integers(V, size=80)
    model = estimate(ids, order=3, vocab_size=V)
    states = model.states(ids)
    logits = torch.from_numpy(rng.normal(0, 2, size=(80, V)))
    found = GateFeatures(model, states)
    order = rng.permutation(80)
    for part in np.split(order, [1, 30]):  # the tokens come in any order and in parts
        found.observe(part, logits[torch.from_numpy(part)])
    network, ngram = logits.softmax(dim=-1).numpy(), model.probs(states).astype(float)
    sums = [(network**2).sum(axis=1), (ngram**2).sum(axis=1), np.sqrt(network * ngram).sum(axis=1)]
    np.testing.assert_allclose(found.values, -np.log(sums), atol=1e-5)


@pytest.mark.parametrize("nats", [np.nan, np.inf])
def test_a_network_that_diverges_gets_no_gate(nats: float, rng: np.random.Generator) -> None:
    ids = rng.integers(V, size=80)
    ngram = estimate(ids, order=3, vocab_size=V)
    validator = TextValidator(SimpleNamespace(), ids, ids, 1, lambda: False, Adaptation.default("char"), ngram)  # type: ignore[arg-type]
    validator.token_nats = lambda _: np.full(80, nats, dtype=np.float32)  # type: ignore[method-assign]
    found = validator.validate()
    assert found is not None
    assert found.gate is None
