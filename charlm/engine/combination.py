"""Combination of the parts of a classifier, and its fit on texts that the parts have not learnt from.

The logits of the classes are a weighted sum of the logits of the parts. The weights minimise the log-loss, and few
texts move them little from their expected values.

Shapes: N texts, C classes, M parts.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]

MAX_WEIGHT = 1000.0
"""Maximum weight of a part."""

PRIOR_TEXTS = 10.0
"""Strength with which the weights are drawn to their expected values, in texts."""

JOINT_SHARE = 0.6
"""Expected weight of a part beside another one, as a share of its weight alone. Two parts with equal and independent
evidence would keep 1, two equal parts 0.5."""

MAX_STEPS = 100


def log_softmax(logits: Floats) -> Doubles:
    """Return the logarithms of the probabilities of classes, (N, C), float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    log_probs: Doubles = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return log_probs


def combine(parts: Sequence[Floats], weights: Sequence[float]) -> Doubles:
    """Return the logarithms of the probabilities of classes, (N, C), for the logits of the parts, (N, C) each."""
    total = sum(weight * part.astype(np.float64) for part, weight in zip(parts, weights, strict=True))
    return log_softmax(np.asarray(total))


def log_loss(log_probs: Floats, labels: npt.NDArray[np.integer]) -> float:
    """Return the mean of the negative logarithm of the probability of the right class, in nats."""
    # Because of rounding, the sum of the probabilities can be above 1. The maximum also removes the sign of -0.0.
    return max(0.0, -float(log_probs[np.arange(len(labels)), labels].mean()))


def fit_weights(
    parts: Sequence[Floats], labels: npt.NDArray[np.integer], expected: Sequence[float] | None = None
) -> list[float]:
    """Return the weights of the parts, each at least 0.

    Newton's method with halved steps; the loss is convex in the weights.

    Args:
        parts: Logits of each part, (N, C) each.
        labels: Index of the class of each text, (N,).
        expected: Expected weight of each part; None for no expectation.

    Example:
        >>> part = np.array([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [0.0, 2.0]])
        >>> (weight,) = fit_weights([part], np.array([0, 1, 0, 0]))
        >>> round(2 * weight, 2)  # three of four texts are right: log(3)
        1.1
    """
    stacked = np.stack([part.astype(np.float64) for part in parts])  # (M, N, C)
    centre = np.ones(len(parts)) if expected is None else np.asarray(expected, dtype=np.float64)
    strength = np.zeros(len(parts)) if expected is None else PRIOR_TEXTS / np.maximum(centre, 1e-6) ** 2
    weights = centre.copy()

    def loss(values: Doubles) -> float:
        log_probs = log_softmax(np.tensordot(values, stacked, axes=1))
        return log_loss(log_probs, labels) * len(labels) + float((strength * (values - centre) ** 2).sum() / 2)

    before = loss(weights)
    for _ in range(MAX_STEPS):
        probs = np.exp(log_softmax(np.tensordot(weights, stacked, axes=1)))
        means = (probs * stacked).sum(axis=2)  # (M, N)
        gradient = (means - stacked[:, np.arange(len(labels)), labels]).sum(axis=1) + strength * (weights - centre)
        centred = stacked - means[:, :, None]
        hessian = np.einsum("inc,jnc,nc->ij", centred, centred, probs) + np.diag(strength + 1e-9)
        step = np.linalg.solve(hessian, gradient)
        for _ in range(30):
            moved = np.clip(weights - step, 0.0, MAX_WEIGHT)
            after = loss(moved)
            if after < before:
                break
            step = step / 2
        if not before - after > 1e-9 * max(1.0, before):
            break
        weights, before = moved, after
    return [float(weight) for weight in weights]
