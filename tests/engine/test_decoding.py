"""The filters compared with references in plain Python, which handle one token at a time."""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.engine.decoding import FILTERS, draw, penalise_repeats, random_numbers, relative_probabilities
from charlm.errors import ConfigError
from charlm.sample_config import DRAWING, SampleConfig

LOGITS = st.lists(st.integers(-40, 40).map(lambda tenths: tenths / 5), min_size=1, max_size=9, unique=True)
SHARES = st.floats(0.011, 0.993)

Probabilities = dict[int, float]


def probabilities(logits: list[list[float]], config: SampleConfig) -> np.ndarray:
    relative = relative_probabilities(logits, config)
    return relative / relative.sum(axis=-1, keepdims=True)


def softmax(values: list[float]) -> Probabilities:
    total = math.fsum(math.exp(value) for value in values)
    return {token: math.exp(value) / total for token, value in enumerate(values)}


def renormalised(probs: Probabilities) -> Probabilities:
    total = math.fsum(probs.values())
    return {token: prob / total for token, prob in probs.items()}


def keep_share(probs: Probabilities, ranked: list[int], share: float) -> Probabilities:
    kept: Probabilities = {}
    for token in ranked:
        if math.fsum(kept.values()) < share:
            kept[token] = probs[token]
    return renormalised(kept)


def by_probability(probs: Probabilities) -> list[int]:
    return sorted(probs, key=lambda token: -probs[token])


def top_k(probs: Probabilities, k: int) -> Probabilities:
    return renormalised({token: probs[token] for token in by_probability(probs)[:k]})


def typical(probs: Probabilities, share: float) -> Probabilities:
    entropy = -math.fsum(prob * math.log(prob) for prob in probs.values())
    ranked = sorted(probs, key=lambda token: abs(-math.log(probs[token]) - entropy))
    return keep_share(probs, ranked, share)


def top_p(probs: Probabilities, share: float) -> Probabilities:
    return keep_share(probs, by_probability(probs), share)


def min_p(probs: Probabilities, ratio: float) -> Probabilities:
    best = max(probs.values())
    return renormalised({token: prob for token, prob in probs.items() if prob >= ratio * best})


REFERENCES: Mapping[str, tuple[Callable[[Probabilities, Any], Probabilities], st.SearchStrategy[Any]]] = {
    # field: the reference of the filter, and the values to test
    "top_k": (top_k, st.integers(1, 10)),
    "typical_p": (typical, SHARES),
    "top_p": (top_p, SHARES),
    "min_p": (min_p, SHARES),
}

SETTINGS = st.fixed_dictionaries(
    {"temperature": st.floats(0.3, 3)}, optional={name: values for name, (_, values) in REFERENCES.items()}
)


def test_every_filter_has_a_setting_a_function_and_a_reference_in_the_same_order() -> None:
    assert list(SampleConfig.filter_names()) == list(FILTERS) == list(REFERENCES)


def test_every_setting_for_the_choice_of_tokens_is_a_filter_or_listed_here() -> None:
    settings = {spec.name for spec in fields(SampleConfig) if spec.metadata and spec.metadata["rule"].group == DRAWING}
    assert settings == {"temperature", "greedy", "allow_unknown", "beam", *FILTERS}


@pytest.mark.parametrize("name", FILTERS)
def test_beam_search_refuses_every_filter(name: str) -> None:
    with pytest.raises(ConfigError, match=f"beam 2 .* omit {name}") as raised:
        SampleConfig.pick({"beam": 2, name: 1})
    assert raised.value.fields == ("beam", name)


@given(LOGITS, SETTINGS)
def test_filters_agree_with_their_references(logits: list[float], settings: dict[str, Any]) -> None:
    config = SampleConfig.pick(settings)
    expected = softmax([logit / config.temperature for logit in logits])
    for name, (reference, _) in REFERENCES.items():
        if name in settings:
            expected = reference(expected, settings[name])
    found = probabilities([logits, logits[::-1]], config)
    np.testing.assert_allclose(found[0], [expected.get(token, 0.0) for token in range(len(logits))], atol=1e-9)
    np.testing.assert_allclose(found[1], found[0][::-1], atol=1e-9)


@pytest.mark.parametrize(
    "settings", [{"temperature": 0}, {"greedy": True}, {"temperature": 1e-9}, {"temperature": 5e-324}, {"top_k": 1}]
)
def test_these_settings_keep_only_the_most_probable_token(settings: dict[str, float]) -> None:
    probs = probabilities([[1.0, 3.0, 2.0]], SampleConfig.pick(settings))
    assert probs.tolist() == [[0, 1, 0]]


def test_greedy_takes_the_first_of_equally_probable_tokens() -> None:
    assert probabilities([[2.0, 3.0, 3.0]], SampleConfig(greedy=True)).tolist() == [[0, 1, 0]]


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=6), st.lists(st.integers(0, 2)), st.floats(1, 4))
def test_the_penalty_divides_positive_logits_and_multiplies_negative_ones(
    logits: list[float], recent: list[int], penalty: float
) -> None:
    expected = [
        logit if token not in recent else logit / penalty if logit > 0 else logit * penalty
        for token, logit in enumerate(logits)
    ]
    found = np.array(logits, dtype=np.float32)
    penalise_repeats(found, recent, penalty)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-30)


def test_drawn_tokens_have_the_frequencies_of_their_probabilities() -> None:
    probs = np.array([[0.5, 0.0, 0.2, 0.3]]).repeat(20_000, axis=0)
    numbers = random_numbers(1)
    tokens = draw(probs, [next(numbers) for _ in probs])
    frequencies = np.bincount(tokens, minlength=4) / len(tokens)
    assert frequencies[1] == 0
    np.testing.assert_allclose(frequencies, probs[0], atol=4 * math.sqrt(0.25 / len(tokens)))


def test_the_largest_random_number_draws_a_token_of_positive_probability() -> None:
    probs = np.array([[0.1] * 10 + [0.0]])
    assert draw(probs, [np.nextafter(1.0, 0.0)]).tolist() == [9]
