"""Fit of the constants of the adaptive part on validation text; see `charlm.engine.adaptive`.

The gains that minimise the loss of the text, read in its order, are found by expectation maximisation. A step starts
from the static model's probabilities, which are computed once, and from the relative frequencies of the tokens in the
text before each of them, which do not depend on the model.

Shapes: N number of tokens, E number of tokens whose context has occurred before, K number of context lengths.

Source:
    Jelinek and Mercer, Interpolated estimation of Markov source parameters from sparse data, 1980.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from charlm.engine.adaptive import COUNT_CLASSES, FOLLOWER_CLASSES, Adaptation

FIRST_STEPS, LATER_STEPS = 10, 2
"""Number of steps from the default gains, and from those of the validation before. The loss after 10 and after 40 steps
differs by less than 0.001 nats per token."""

PRIOR_TOKENS = 10.0
"""Number of tokens of each class that the default gain counts as, so that rare classes keep nearly this gain."""

MAX_GAIN = 0.999
"""Maximum of a gain, so that every token keeps a probability above 0."""

Floats = npt.NDArray[np.float64]


class Predictions(NamedTuple):
    """Predictions of the tokens of a text from the tokens before, with contexts of one length.

    Attributes:
        places: Index of each token whose context has occurred before, (E,).
        frequencies: Relative frequency of this token among the followers of its context until then, (E,).
        classes: Class of occurrences and of followers of the context, as an index, (E,).
    """

    places: npt.NDArray[np.int32]
    frequencies: npt.NDArray[np.float32]
    classes: npt.NDArray[np.uint8]


def predictions(ids: npt.NDArray[Any], context_lengths: tuple[int, ...]) -> list[Predictions]:
    """Return the predictions of the tokens of a text for each context length.

    Args:
        ids: The token before the text, then the text, (N + 1,), integers.
        context_lengths: The context lengths, in ascending order.
    """
    targets = ids[1:].astype(np.int64)
    size = int(ids.max(initial=0)) + 2
    contexts = np.zeros(len(targets), dtype=np.int64)  # index of the context before each token
    found: list[Predictions] = []
    for length in range(max(context_lengths) + 1):
        if length:
            last = np.concatenate([np.full(length - 1, -1), ids])[: len(targets)].astype(np.int64)
            contexts = _ranks(contexts * size + last + 1)
        if length in context_lengths:
            occurrences = _earlier(contexts)
            counts = _earlier(contexts * size + targets)
            followers = _sums_before(contexts, counts == 0)
            places = np.flatnonzero(occurrences)
            count_class = np.minimum(np.frexp(occurrences[places])[1] - 1, COUNT_CLASSES - 1)
            follower_class = np.minimum(followers[places], FOLLOWER_CLASSES) - 1
            found.append(
                Predictions(
                    places.astype(np.int32),
                    (counts[places] / occurrences[places]).astype(np.float32),
                    (count_class * FOLLOWER_CLASSES + follower_class).astype(np.uint8),
                )
            )
    return found


def _ranks(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the index of each key among the distinct keys in ascending order."""
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)


def _earlier(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the number of earlier places with the same key, for each place."""
    return _sums_before(keys, np.ones(len(keys), dtype=np.bool_))


def _sums_before(keys: npt.NDArray[np.int64], counted: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the number of earlier places with the same key that are counted, for each place."""
    order = np.argsort(keys, kind="stable")
    ordered, steps = keys[order], counted[order].astype(np.int64)
    before = np.cumsum(steps) - steps
    is_first = np.ones(len(keys), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    first_of_key = np.maximum.accumulate(np.where(is_first, np.arange(len(keys)), 0))
    sums = np.empty_like(before)
    sums[order] = before - before[first_of_key]
    return sums


def adaptive_loss(nats: npt.NDArray[Any], found: Sequence[Predictions], adaptation: Adaptation) -> float:
    """Return the loss of a text by the adaptive model, in nats per token.

    Args:
        nats: Negative log-probability of each token by the static model, (N,).
        found: The predictions of the tokens.
        adaptation: The constants.
    """
    gains = adaptation.gains.reshape(len(found), -1).astype(np.float64)
    return float(-np.log(_interpolated(np.exp(-nats.astype(np.float64)), found, gains)[-1]).mean())


def fit(
    nats: npt.NDArray[Any], found: Sequence[Predictions], default: Adaptation, earlier: Adaptation | None = None
) -> Adaptation:
    """Return the constants that fit a text.

    Args:
        nats: Negative log-probability of each token by the static model, (N,).
        found: The predictions of the tokens, for the context lengths of `default`.
        default: The default constants, which count as some observed tokens.
        earlier: Constants to start from, which fitted the text before the model was trained further; None to start from
            the default ones.
    """
    static = np.exp(-nats.astype(np.float64))
    prior = default.gains.reshape(len(found), -1).astype(np.float64)
    gains = prior if earlier is None else earlier.gains.reshape(prior.shape).astype(np.float64)
    for _ in range(FIRST_STEPS if earlier is None else LATER_STEPS):
        gains = _improved(static, found, gains, prior)
    return Adaptation(default.context_lengths, gains.reshape(default.gains.shape).astype(np.float32))


def _improved(static: Floats, found: Sequence[Predictions], gains: Floats, prior: Floats) -> Floats:
    """Return the gains after one step of expectation maximisation."""
    improved = np.empty_like(gains)
    levels = _interpolated(static, found, gains)
    reached = np.ones(len(static))  # probability that no longer context has predicted the token
    for index in reversed(range(len(found))):
        places, frequencies, classes = found[index]
        share = gains[index, classes] * frequencies / levels[index + 1][places]
        weights = reached[places]
        num_classes = gains.shape[1]
        predicted = np.bincount(classes, weights * share, num_classes) + PRIOR_TOKENS * prior[index]
        improved[index] = predicted / (np.bincount(classes, weights, num_classes) + PRIOR_TOKENS)
        reached[places] = weights * (1 - share)
    return np.minimum(improved, MAX_GAIN)


def _interpolated(static: Floats, found: Sequence[Predictions], gains: Floats) -> list[Floats]:
    """Return the probabilities of the tokens, (N,), by the static model and then up to each context length."""
    levels = [static]
    for (places, frequencies, classes), of_length in zip(found, gains, strict=True):
        level = levels[-1].copy()
        gain = of_length[classes]
        level[places] += gain * (frequencies - level[places])
        levels.append(level)
    return levels
