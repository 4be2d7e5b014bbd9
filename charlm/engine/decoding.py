"""Choice of the next token from logits: temperature, filters, repetition penalty and the random draw.

Shapes: B batch, V vocabulary. The probabilities of a row need not sum to 1, because `draw` divides by their sum.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from charlm.sample_config import SampleConfig

Probabilities = npt.NDArray[np.float64]

RANDOM_BLOCK = 1024
"""Number of random numbers generated at a time. One call for each number would be slower."""

MIN_TEMPERATURE = 1e-200
"""Minimum of positive temperatures; lower ones are raised to it. They would overflow float64, and the result is the
same: all tokens except the most probable one have probability 0."""


def relative_probabilities(logits: npt.ArrayLike, config: SampleConfig) -> Probabilities:
    """Return the probabilities with which tokens are drawn, up to a factor for each row.

    The temperature is applied first, then the filters in the order of `FILTERS`, each to the tokens that the previous
    ones have kept. At least one token is always kept.

    Args:
        logits: Logits, (B, V).
        config: Temperature and filters. At temperature 0, or with `greedy`, only the most probable token is kept. If
            several tokens are equally probable, only the first of them is kept.

    Returns:
        Relative probabilities, (B, V), float64, from 0 to 1. The most probable token has 1, unless `typical_p`
        excludes it.
    """
    probs = np.array(logits, dtype=np.float64, order="C")
    if config.greedy or config.temperature == 0:
        best = probs.argmax(axis=-1, keepdims=True)
        probs[...] = 0.0
        np.put_along_axis(probs, best, 1.0, axis=-1)
        return probs
    probs -= np.maximum.reduce(probs, axis=-1, keepdims=True)
    probs /= max(config.temperature, MIN_TEMPERATURE)
    np.exp(probs, out=probs)
    for name, apply in FILTERS.items():
        value = getattr(config, name)
        if value is not None:
            apply(probs, value)
    return probs


def filter_top_k(probs: Probabilities, k: int) -> None:
    """Keep the `k` most probable tokens of each row; in place.

    Args:
        probs: Relative probabilities, (B, V).
        k: Number of tokens to keep.
    """
    if k < probs.shape[-1]:
        order = np.argsort(-probs, axis=-1, kind="stable")
        np.put_along_axis(probs, order[:, k:], 0.0, axis=-1)


def filter_typical(probs: Probabilities, share: float) -> None:
    """Keep the tokens whose surprisal is closest to the entropy, until they hold a share of the probability; in place.

    Args:
        probs: Relative probabilities, (B, V).
        share: Share of the total probability to keep, from 0 to 1.

    Source:
        Locally typical sampling: Meister et al., arXiv 2202.00666.
    """
    normalised = probs / probs.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        surprisal = -np.log(normalised)  # in nats; infinite for tokens that are excluded already
    entropy = np.sum(normalised * np.where(normalised > 0, surprisal, 0.0), axis=-1, keepdims=True)
    _keep_share(probs, np.abs(surprisal - entropy), share)


def filter_top_p(probs: Probabilities, share: float) -> None:
    """Keep the most probable tokens of each row, until they hold a share of the probability; in place.

    Args:
        probs: Relative probabilities, (B, V).
        share: Share of the total probability to keep, from 0 to 1.

    Source:
        Nucleus sampling: Holtzman et al., arXiv 1904.09751.
    """
    _keep_share(probs, -probs, share)


def filter_min_p(probs: Probabilities, ratio: float) -> None:
    """Exclude tokens that are much less probable than the most probable one; in place.

    Args:
        probs: Relative probabilities, (B, V).
        ratio: Minimum probability, relative to that of the most probable token of the row.

    Source:
        Min-p sampling: Nguyen et al., arXiv 2407.01082.
    """
    probs[probs < ratio * probs.max(axis=-1, keepdims=True)] = 0.0


FILTERS: Mapping[str, Callable[[Probabilities, Any], None]] = {
    "top_k": filter_top_k,
    "typical_p": filter_typical,
    "top_p": filter_top_p,
    "min_p": filter_min_p,
}
"""Filters in the order of application, by the name of their field in `SampleConfig`.

A filter sets the relative probabilities, (B, V), of the tokens that it excludes to 0, in place. Its second argument is
the value of the field. It is not called if the field is None. To add a filter, write the function, its entry here, a
field with `is_filter=True` in `SampleConfig` at the same position, and a reference in the tests.
"""


def _keep_share(probs: Probabilities, sort_key: Probabilities, share: float) -> None:
    """Keep the first tokens of each row, in ascending order of a key, until they hold a share; in place."""
    order = np.argsort(sort_key, axis=-1, kind="stable")
    ranked = np.take_along_axis(probs, order, axis=-1)
    preceding = np.cumsum(ranked, axis=-1) - ranked  # total of the tokens before each one
    ranked[preceding >= share * ranked.sum(axis=-1, keepdims=True)] = 0.0
    np.put_along_axis(probs, order, ranked, axis=-1)


def penalise_repeats(logits: npt.NDArray[np.float32], recent_ids: Sequence[int], penalty: float) -> None:
    """Make recent tokens less probable; in place.

    Args:
        logits: Logits of one sample, (V,), float32.
        recent_ids: Ids of its latest tokens.
        penalty: Divisor of positive logits and factor of negative ones.

    Source:
        Keskar et al., arXiv 1909.05858, section 4.1. The paper divides all logits, which would make tokens with
        negative logits more probable; multiplying those is the usual correction.
    """
    distinct = list(set(recent_ids))
    values = logits[distinct]
    logits[distinct] = np.where(values > 0, values / penalty, values * penalty)


def log_softmax(logits: npt.ArrayLike) -> Probabilities:
    """Return the log-probabilities in nats, (B, V), float64, for logits, (B, V)."""
    values: Probabilities = np.array(logits, dtype=np.float64)
    values -= values.max(axis=-1, keepdims=True)
    values -= np.log(np.exp(values).sum(axis=-1, keepdims=True))
    return values


def draw(probs: Probabilities, uniforms: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """Draw one token for each row, by inverting the cumulative distribution.

    Args:
        probs: Relative probabilities, (B, V).
        uniforms: Random numbers from [0, 1), (B,).

    Returns:
        Ids, (B,).
    """
    cumulative = np.add.accumulate(probs, axis=-1)
    targets = np.asarray(uniforms)[:, None] * cumulative[:, -1:]
    ids: npt.NDArray[np.intp] = (cumulative > targets).argmax(axis=-1)
    return ids


def random_numbers(seed: int) -> Iterator[float]:
    """Yield random numbers from [0, 1) without end, the same ones for the same seed."""
    generator = np.random.default_rng(seed)
    while True:
        yield from generator.random(RANDOM_BLOCK).tolist()
