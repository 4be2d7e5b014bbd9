"""The filters against references in plain Python, one token at a time."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.config import SampleConfig
from charlm.engine.decoding import draw, penalise_repeats, token_probabilities, uniforms

LOGITS = st.lists(st.integers(-40, 40).map(lambda tenths: tenths / 5), min_size=1, max_size=9, unique=True)


def softmax(values: list[float]) -> dict[int, float]:
    total = math.fsum(math.exp(value) for value in values)
    return {token: math.exp(value) / total for token, value in enumerate(values)}


def renormalised(probs: dict[int, float]) -> dict[int, float]:
    total = math.fsum(probs.values())
    return {token: prob / total for token, prob in probs.items()}


def keep_share(probs: dict[int, float], ranked: list[int], share: float) -> dict[int, float]:
    kept: dict[int, float] = {}
    for token in ranked:
        if math.fsum(kept.values()) < share:
            kept[token] = probs[token]
    return renormalised(kept)


def by_probability(probs: dict[int, float]) -> list[int]:
    return sorted(probs, key=lambda token: -probs[token])


def reference(logits: list[float], config: SampleConfig) -> dict[int, float]:
    probs = softmax([logit / config.temperature for logit in logits])
    if config.top_k is not None:
        probs = renormalised({token: probs[token] for token in by_probability(probs)[: config.top_k]})
    if config.typical_p is not None:
        entropy = -math.fsum(prob * math.log(prob) for prob in probs.values())
        ranked = sorted(probs, key=lambda token: abs(-math.log(probs[token]) - entropy))
        probs = keep_share(probs, ranked, config.typical_p)
    if config.top_p is not None:
        probs = keep_share(probs, by_probability(probs), config.top_p)
    if config.min_p is not None:
        best = max(probs.values())
        probs = renormalised({token: prob for token, prob in probs.items() if prob >= config.min_p * best})
    return probs


SHARES = st.floats(0.011, 0.993)
SETTINGS = st.fixed_dictionaries(
    {"temperature": st.floats(0.3, 3)},
    optional={"top_k": st.integers(1, 10), "typical_p": SHARES, "top_p": SHARES, "min_p": SHARES},
)


@given(LOGITS, SETTINGS)
def test_filters_have_their_standard_meaning(logits: list[float], settings: dict[str, float]) -> None:
    config = SampleConfig.pick(settings)
    wanted = reference(logits, config)
    found = token_probabilities([logits, logits[::-1]], config)
    np.testing.assert_allclose(found[0], [wanted.get(token, 0.0) for token in range(len(logits))], atol=1e-9)
    np.testing.assert_allclose(found[1], found[0][::-1], atol=1e-9)


@pytest.mark.parametrize(
    "settings", [{"temperature": 0}, {"greedy": True}, {"temperature": 1e-9}, {"temperature": 5e-324}, {"top_k": 1}]
)
def test_these_settings_take_the_likeliest(settings: dict[str, float]) -> None:
    probs = token_probabilities([[1.0, 3.0, 2.0]], SampleConfig.pick(settings))
    assert probs.tolist() == [[0, 1, 0]]


def test_of_equals_the_first_is_the_likeliest() -> None:
    assert token_probabilities([[2.0, 3.0, 3.0]], SampleConfig(greedy=True)).tolist() == [[0, 1, 0]]


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=6), st.lists(st.integers(0, 2)), st.floats(1, 4))
def test_the_penalty_divides_what_favours_and_multiplies_what_does_not(
    logits: list[float], recent: list[int], penalty: float
) -> None:
    wanted = [
        logit if token not in recent else logit / penalty if logit > 0 else logit * penalty
        for token, logit in enumerate(logits)
    ]
    found = np.array(logits, dtype=np.float32)
    penalise_repeats(found, recent, penalty)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-30)


def test_draws_have_the_frequencies_of_the_probabilities() -> None:
    probs = np.array([[0.5, 0.0, 0.2, 0.3]]).repeat(20_000, axis=0)
    numbers = uniforms(1)
    tokens = draw(probs, [next(numbers) for _ in probs])
    frequencies = np.bincount(tokens, minlength=4) / len(tokens)
    assert frequencies[1] == 0
    np.testing.assert_allclose(frequencies, probs[0], atol=4 * math.sqrt(0.25 / len(tokens)))


def test_a_draw_of_the_greatest_number_takes_a_token_with_probability() -> None:
    probs = np.array([[0.1] * 10 + [0.0]])
    assert draw(probs, [np.nextafter(1.0, 0.0)]).tolist() == [9]
