"""From logits to the token that is said: temperature, filters, repetition penalty, and the draw.

Shapes: B batch, V vocabulary.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from charlm.config import SampleConfig

Probabilities = npt.NDArray[np.float64]

DRAWS = 1024
"""Random numbers are made in blocks of so many."""

LEAST_TEMPERATURE = 1e-200
"""Below it nothing changes: all but the likeliest tokens have exp(-inf) = 0 there, and float64 would overflow."""


def token_probabilities(logits: npt.ArrayLike, config: SampleConfig) -> Probabilities:
    """The probabilities that tokens are drawn with, after all filters: `token_weights` with the sum 1, (B, V)."""
    weights = token_weights(logits, config)
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def token_weights(logits: npt.ArrayLike, config: SampleConfig) -> Probabilities:
    """What the probabilities that tokens are drawn with are in proportion to, after all filters.

    The filters go in the order top-k, typical, top-p, min-p, each on what the last has left and at the temperature
    asked for. One token always stays.

    Args:
        logits: (B, V).
        config: Temperature and filters. At temperature 0 the first of the likeliest tokens is left alone.

    Returns:
        (B, V), float64, from 0 to 1; the likeliest token of all has 1, unless typical drops it.

    Source:
        typical: Meister et al., arXiv 2202.00666; top-p: Holtzman et al., arXiv 1904.09751; min-p: Nguyen et al.,
        arXiv 2407.01082.
    """
    weights = np.array(logits, dtype=np.float64, order="C")
    if config.greedy or config.temperature == 0:
        best = weights.argmax(axis=-1, keepdims=True)
        weights[...] = 0.0
        np.put_along_axis(weights, best, 1.0, axis=-1)
        return weights
    weights -= np.maximum.reduce(weights, axis=-1, keepdims=True)
    weights /= max(config.temperature, LEAST_TEMPERATURE)
    np.exp(weights, out=weights)
    if config.top_k is not None and config.top_k < weights.shape[-1]:
        order = np.argsort(-weights, axis=-1, kind="stable")
        np.put_along_axis(weights, order[:, config.top_k :], 0.0, axis=-1)
    if config.typical_p is not None:
        _keep_share(weights, _distance_from_entropy(weights), config.typical_p)
    if config.top_p is not None:
        _keep_share(weights, -weights, config.top_p)
    if config.min_p is not None:
        weights[weights < config.min_p * weights.max(axis=-1, keepdims=True)] = 0.0
    return weights


def _keep_share(probs: Probabilities, key: Probabilities, share: float) -> None:
    """Keep the fewest tokens, those with the least key first, that hold a share of all probability; in place."""
    order = np.argsort(key, axis=-1, kind="stable")
    ranked = np.take_along_axis(probs, order, axis=-1)
    before = np.cumsum(ranked, axis=-1) - ranked  # the mass of all tokens that come first
    ranked[before >= share * ranked.sum(axis=-1, keepdims=True)] = 0.0
    np.put_along_axis(probs, order, ranked, axis=-1)


def _distance_from_entropy(probs: Probabilities) -> Probabilities:
    """How far each token's surprise is from the expected one, in nats; infinite for tokens dropped already."""
    shares = probs / probs.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        surprise = -np.log(shares)
    entropy = np.sum(shares * np.where(shares > 0, surprise, 0.0), axis=-1, keepdims=True)
    distance: Probabilities = np.abs(surprise - entropy)
    return distance


def penalise_repeats(logits: npt.NDArray[np.float32], recent: Sequence[int], penalty: float) -> None:
    """Make tokens less likely that came up lately, in place.

    Args:
        logits: Of one sample, (V,).
        recent: Its latest tokens.
        penalty: Positive logits are divided by it, negative ones multiplied.

    Source:
        Keskar et al., arXiv 1909.05858, section 4.1, with the sign handled as everybody does since.
    """
    seen = list(set(recent))
    values = logits[seen]
    logits[seen] = np.where(values > 0, values / penalty, values * penalty)


def log_softmax(logits: npt.ArrayLike) -> Probabilities:
    """The log-probabilities of the model itself, (B, V), in nats."""
    values: Probabilities = np.array(logits, dtype=np.float64)
    values -= values.max(axis=-1, keepdims=True)
    values -= np.log(np.exp(values).sum(axis=-1, keepdims=True))
    return values


def draw(weights: Probabilities, uniforms: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """Take one token of each row, (B,), with probabilities in proportion to weights, (B, V).

    Args:
        weights: Not negative.
        uniforms: Random numbers from [0, 1), (B,).
    """
    cumulative = np.add.accumulate(weights, axis=-1)
    targets = np.asarray(uniforms)[:, None] * cumulative[:, -1:]
    drawn: npt.NDArray[np.intp] = (cumulative > targets).argmax(axis=-1)
    return drawn


def uniforms(seed: int) -> Iterator[float]:
    """Random numbers from [0, 1), without end, the same for the same seed."""
    generator = np.random.default_rng(seed)
    while True:
        yield from generator.random(DRAWS).tolist()
