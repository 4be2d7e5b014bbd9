import itertools

import numpy as np
import pytest

from charlm.config import SampleConfig
from charlm.engine.beam import beam_search
from charlm.engine.novelty import Guard
from charlm.engine.rnn import RecurrentNetwork
from charlm.engine.sampler import next_tokens
from charlm.errors import NoveltyError
from tests.conftest import make_checkpoint

LETTERS = "abc\n"


@pytest.fixture
def network() -> RecurrentNetwork:
    return RecurrentNetwork(make_checkpoint(LETTERS)[1])


def cost(network: RecurrentNetwork, prompt: str, text: str) -> float:
    steps = range(len(text))
    return -sum(np.log(dict(next_tokens(network, prompt + text[:step]))[text[step]]) for step in steps)


def search(
    network: RecurrentNetwork, prompt: str = "a", guard: Guard | None = None, **settings: object
) -> list[tuple[str, float]]:
    beams = beam_search(network, SampleConfig.pick(settings), prompt, guard)
    return [(beam.text, beam.writer.nll_nats) for beam in beams]


def test_a_beam_wide_enough_finds_the_likeliest_texts_of_all(network: RecurrentNetwork) -> None:
    everything = ["".join(chars) for chars in itertools.product(LETTERS, repeat=4)]
    costs = sorted((cost(network, "a", text), text) for text in everything)
    found = search(network, beam=64, length=4)
    assert [text for text, _ in found] == [text for _, text in costs[:64]]
    np.testing.assert_allclose([nats for _, nats in found], [nats for nats, _ in costs[:64]], atol=1e-4)


def test_one_beam_is_greedy(network: RecurrentNetwork) -> None:
    written = ""
    for _ in range(10):
        written += next(token for token, _ in next_tokens(network, "a" + written) if token in LETTERS)
    assert search(network, beam=1, length=10)[0][0] == written


def test_a_search_never_does_worse_than_a_narrower_one(network: RecurrentNetwork) -> None:
    costs = [search(network, beam=beam, length=6)[0][1] for beam in (1, 256)]
    assert costs[1] <= costs[0] + 1e-5


def test_texts_that_end_are_ranked_by_cost_a_token(network: RecurrentNetwork) -> None:
    found = beam_search(network, SampleConfig(beam=8, length=5, stop=("bb",), lines=1), "a")
    assert all("bb" not in beam.text and "\n" not in beam.text[:-1] for beam in found)
    assert {beam.writer.ending for beam in found} & {"stop", "lines"}
    means = [beam.writer.nats_per_token for beam in found]
    assert means == sorted(means)
    assert search(network, beam=2, length=0) == [("", 0.0)]


def test_a_guard_holds_in_a_search_too(network: RecurrentNetwork) -> None:
    free = search(network, beam=4, length=6)[0][0]
    guarded = search(network, beam=4, length=6, guard=Guard("a" + free, 3))
    runs = {("a" + free)[place : place + 3] for place in range(5)}
    assert all(run not in "a" + text for text, _ in guarded for run in runs)
    with pytest.raises(NoveltyError, match="--novel"):
        search(network, beam=4, length=6, guard=Guard(LETTERS, 1))
