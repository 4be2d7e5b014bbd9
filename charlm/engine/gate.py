"""Gate: weights of a network, of an n-gram model and of their geometric mean, which depend on their predictions.

The probability of a token is interpolated from three distributions, the third of which favours tokens that both parts
expect:

    p = w_1 p_1 + w_2 p_2 + w_3 p_3,    p_3 = sqrt(p_1 p_2) / Z,    Z = sum of sqrt(p_1 p_2) over all tokens

p_1 is that of the network, p_2 that of the n-gram model. The weights are the softmax of three scores. That of the
network is 0, the others are linear functions of three numbers: how unsure the network is, how unsure the n-gram model
is, and how much they disagree:

    s_k = a_k0 + a_k1 H(p_1) + a_k2 H(p_2) + a_k3 D,    H(q) = -ln(sum of q^2),    D = -ln Z

H is the collision entropy, D the Bhattacharyya distance. Both are sums of products, which are faster than logarithms.

Shapes: B distributions, V vocabulary.

Source:
    Gates: Jacobs et al., Adaptive mixtures of local experts, 1991. Geometric means of language models: Klakow,
    Log-linear interpolation of language models, ICSLP 1998.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from charlm.engine.ngram import MIN_PROB

NUM_FEATURES = 4
"""Number of coefficients of a score: a constant, and those of H(p_1), H(p_2) and D."""

MAX_COEFFICIENT = 1e3
"""Maximum magnitude of a coefficient."""

MIN_TOTAL = 1e-12
"""Value of Z below which the products p_1 p_2 may be too small for 32-bit floats."""

MAX_SINGLE_ROWS = 8
"""Maximum number of distributions whose weights are computed one by one. For a few, the calls of NumPy would take most
of the time."""

Array = npt.NDArray[np.float32]


class Gate:
    """Weights of a network, of an n-gram model and of their geometric mean.

    Args:
        coefficients: a_2 and a_3, (2, 4): those of the n-gram model, and those of the geometric mean.

    Attributes:
        coefficients: As given, float64.

    Raises:
        ValueError: If the shape is another one, or a coefficient is not a number or above `MAX_COEFFICIENT`.

    Example:
        >>> sure, unsure = np.float32([[0.98, 0.01, 0.01]]), np.float32([[0.3, 0.4, 0.3]])
        >>> gate = Gate([[0, 2, -2, 0], [-9, 0, 0, 0]])  # the surer part has the greater weight
        >>> gate.interpolate(sure.copy(), unsure.copy())[0, 0] > 0.8
        np.True_
    """

    def __init__(self, coefficients: npt.ArrayLike) -> None:
        self.coefficients = np.asarray(coefficients, dtype=np.float64)
        # NaN fails every comparison, therefore the condition is negated.
        shape = self.coefficients.shape
        if shape != (2, NUM_FEATURES) or not (np.abs(self.coefficients) <= MAX_COEFFICIENT).all():
            raise ValueError(f"a gate of shape {shape}, or with a coefficient that is not a number or too large")
        self._rows: list[list[float]] = self.coefficients.tolist()

    def interpolate(self, network: Array, ngram: Array) -> Array:
        """Return the interpolated probabilities, (B, V), float32.

        Args:
            network: Probabilities by the network, (B, V), float32. They are overwritten.
            ngram: Probabilities by the n-gram model, (B, V), float32. They are overwritten.
        """
        both = network * ngram
        np.sqrt(both, out=both)
        if len(network) <= MAX_SINGLE_ROWS:
            self._weight_rows(network, ngram, both)
        else:
            self._weight_all(network, ngram, both)
        network += ngram
        network += both
        return network

    def _weight_rows(self, network: Array, ngram: Array, both: Array) -> None:
        """Multiply distributions by their weights, one by one; see `weights`. `both` is normalised too."""
        (a0, a1, a2, a3), (b0, b1, b2, b3) = self._rows
        log, exp = math.log, math.exp
        for first, second, third in zip(network, ngram, both, strict=True):
            total = float(np.add.reduce(third))
            if total < MIN_TOTAL:
                third[:] = _roots_of_small_products(first, second)
                total = float(np.add.reduce(third))
            unsure, ngram_unsure, distance = -log(first.dot(first)), -log(second.dot(second)), -log(total)
            counted = a0 + a1 * unsure + a2 * ngram_unsure + a3 * distance
            mean = b0 + b1 * unsure + b2 * ngram_unsure + b3 * distance
            highest = max(0.0, counted, mean)
            weight, ngram_weight, mean_weight = exp(-highest), exp(counted - highest), exp(mean - highest)
            scale = 1 / (weight + ngram_weight + mean_weight)
            first *= weight * scale
            second *= ngram_weight * scale
            third *= mean_weight * scale / total

    def _weight_all(self, network: Array, ngram: Array, both: Array) -> None:
        """Multiply distributions by their weights. `both` is normalised too."""
        total = np.add.reduce(both, axis=1)
        small = np.flatnonzero(total < MIN_TOTAL)
        if len(small):
            both[small] = _roots_of_small_products(network[small], ngram[small])
            total[small] = np.add.reduce(both[small], axis=1)
        weights = self.weights(_square_sums(network), _square_sums(ngram), total)
        weights[2] /= total
        for probs, weight in zip((network, ngram, both), weights, strict=True):
            probs *= weight[:, None]

    def weights(
        self, network_squares: npt.NDArray[Any], ngram_squares: npt.NDArray[Any], total: npt.NDArray[Any]
    ) -> Array:
        """Return the weights of network, n-gram model and geometric mean, (3, B), float32.

        Args:
            network_squares: Sum of the squared probabilities by the network, (B,).
            ngram_squares: Sum of the squared probabilities by the n-gram model, (B,).
            total: Z, (B,).
        """
        features = -np.log(np.stack([network_squares, ngram_squares, total]))
        scores = np.zeros((3, len(total)))
        scores[1:] = self.coefficients[:, :1] + self.coefficients[:, 1:] @ features
        weights = np.exp(scores - scores.max(axis=0))
        found: Array = (weights / weights.sum(axis=0)).astype(np.float32)
        return found


def _roots_of_small_products(network: Array, ngram: Array) -> Array:
    """Return sqrt(p_1 p_2), whose sum over all tokens is above 0 in every case; see `MIN_PROB`."""
    roots: Array = np.sqrt(np.maximum(network, MIN_PROB)) * np.sqrt(np.maximum(ngram, MIN_PROB))
    return roots


def _square_sums(probs: Array) -> Array:
    """Return the sum of the squares of each row, (B,)."""
    sums: Array = np.einsum("bv,bv->b", probs, probs)
    return sums
