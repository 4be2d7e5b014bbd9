"""Beam search compared with an exhaustive search over all short texts."""

import itertools

import numpy as np
import pytest

from charlm.engine.beam import beam_search
from charlm.engine.novelty import NoveltyFilter
from charlm.engine.rnn import RecurrentNetwork
from charlm.engine.sampler import next_tokens
from charlm.errors import NoveltyError
from charlm.sample_config import SampleConfig
from tests.conftest import make_checkpoint

LETTERS = "abc\n"


@pytest.fixture
def network() -> RecurrentNetwork:
    return RecurrentNetwork(make_checkpoint(LETTERS)[1])


def nll(network: RecurrentNetwork, prompt: str, text: str) -> float:
    steps = range(len(text))
    return -sum(np.log(dict(next_tokens(network, prompt + text[:step]))[text[step]]) for step in steps)


def search(
    network: RecurrentNetwork, prompt: str = "a", novelty_filter: NoveltyFilter | None = None, **settings: object
) -> list[tuple[str, float]]:
    hypotheses = beam_search(network, SampleConfig.pick(settings), prompt, novelty_filter)
    return [(found.text, found.generation.nll_nats) for found in hypotheses]


def test_a_wide_beam_finds_the_most_probable_texts_of_all(network: RecurrentNetwork) -> None:
    everything = ["".join(chars) for chars in itertools.product(LETTERS, repeat=4)]
    ranked = sorted((nll(network, "a", text), text) for text in everything)
    found = search(network, beam=64, length=4)
    assert [text for text, _ in found] == [text for _, text in ranked[:64]]
    np.testing.assert_allclose([nats for _, nats in found], [nats for nats, _ in ranked[:64]], atol=1e-4)


def test_a_beam_width_of_1_equals_greedy_decoding(network: RecurrentNetwork) -> None:
    written = ""
    for _ in range(10):
        written += next(token for token, _ in next_tokens(network, "a" + written) if token in LETTERS)
    assert search(network, beam=1, length=10)[0][0] == written


def test_a_wider_beam_finds_a_text_at_least_as_probable(network: RecurrentNetwork) -> None:
    nlls = [search(network, beam=beam, length=6)[0][1] for beam in (1, 256)]
    assert nlls[1] <= nlls[0] + 1e-5


@pytest.mark.parametrize("width", [256, 16])
def test_texts_of_different_lengths_are_ranked_by_their_probability(network: RecurrentNetwork, width: int) -> None:
    """Complete texts end at the first newline, before "bb", or after four tokens."""
    ends = [
        "".join(chars)
        for length in (1, 2, 3, 4)
        for chars in itertools.product(LETTERS, repeat=length)
        if not any(mark in "".join(chars[:-1]) for mark in ("\n", "bb"))
        and (length == 4 or chars[-1] == "\n" or chars[-2:] == ("b", "b"))
    ]
    ranked = sorted((nll(network, "a", text), text.removesuffix("bb")) for text in ends)
    found = search(network, beam=width, length=4, stop=("bb",), lines=1)
    assert len(found) == min(width, len(ranked))
    assert [text for text, _ in found[:8]] == [text for _, text in ranked[:8]]
    np.testing.assert_allclose([nats for _, nats in found[:8]], [nats for nats, _ in ranked[:8]], atol=1e-4)


def test_search_continues_while_an_unfinished_text_is_more_probable(network: RecurrentNetwork) -> None:
    best, *_ = search(network, beam=1, length=5, lines=1)
    wide, *_ = search(network, beam=3, length=5, lines=1)
    assert wide[1] <= best[1] + 1e-5
    assert search(network, beam=2, length=0) == [("", 0.0)]


def test_a_beam_search_respects_the_novelty_filter(network: RecurrentNetwork) -> None:
    free = search(network, beam=4, length=6)[0][0]
    filtered = search(network, beam=4, length=6, novelty_filter=NoveltyFilter("a" + free, 3))
    runs = {("a" + free)[start : start + 3] for start in range(5)}
    assert all(run not in "a" + text for text, _ in filtered for run in runs)
    with pytest.raises(NoveltyError, match=r"novel: .* use a larger value, or a larger beam") as raised:
        search(network, beam=4, length=6, novelty_filter=NoveltyFilter(LETTERS, 1))
    assert raised.value.fields == ("novel", "beam")
