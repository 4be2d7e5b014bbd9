"""Sampled texts compared with a simple reference, and the rules that end them."""

import itertools
import tracemalloc

import numpy as np
import pytest

from charlm.engine.decoding import random_numbers
from charlm.engine.novelty import NoveltyFilter, TrainingText
from charlm.engine.predictor import START
from charlm.engine.rnn import RecurrentNetwork
from charlm.engine.sampler import Sampler, next_tokens
from charlm.errors import ConfigError, NoveltyError
from charlm.sample_config import SampleConfig
from charlm.text.tokenizer import UNKNOWN_ID
from tests.conftest import VERSE, make_checkpoint

PROMPTS = ["To be", "", "Whether 'tis nobler in the mind", "x", "To be"]


@pytest.fixture
def network() -> RecurrentNetwork:
    return RecurrentNetwork(make_checkpoint(num_layers=2)[1])


def texts(sampler: Sampler, prompts: list[str]) -> list[str]:
    return ["".join(pieces) for pieces in zip(*sampler.generate(sampler.start(prompts)), strict=True)]


def text(network: RecurrentNetwork, prompt: str = "To be", **settings: object) -> str:
    config = SampleConfig.pick({"seed": 5, "length": 60, **settings})
    return texts(Sampler(predictor=network, config=config), [prompt])[0]


def simple_sample(network: RecurrentNetwork, prompt: str, seed: int, length: int, temperature: float) -> str:
    """Reference: sample one token at a time and read the whole text again for each."""
    ids = network.tokenizer.encode(START + prompt).tolist()
    numbers = random_numbers(seed)
    for _ in range(length):
        logits = network.logits(network.outputs([ids], network.zero_state()))[0, -1].astype(float)
        logits[UNKNOWN_ID] = -np.inf
        cumulative = np.cumsum(np.exp(logits / temperature))
        ids.append(int(np.searchsorted(cumulative, next(numbers) * cumulative[-1], side="right")))
    return network.tokenizer.decode(ids)[len(START + prompt) :]


def test_samples_equal_those_of_a_simple_reference(network: RecurrentNetwork) -> None:
    assert text(network, seed=9, length=40, temperature=0.7) == simple_sample(network, "To be", 9, 40, 0.7)


def test_each_of_several_samples_equals_the_sample_of_its_seed(network: RecurrentNetwork) -> None:
    eight = texts(Sampler(predictor=network, config=SampleConfig(seed=20, count=8, length=50)), ["To be"])
    assert len(set(eight)) == 8
    assert eight == [text(network, seed=20 + index, length=50) for index in range(8)]


def test_several_prompts_give_the_same_texts_as_each_prompt_alone(network: RecurrentNetwork) -> None:
    config = SampleConfig(seed=3, count=2, length=30)
    alone = [text(network, prompt, seed=3 + 2 * index, count=2, length=30) for index, prompt in enumerate(PROMPTS)]
    assert texts(Sampler(predictor=network, config=config), PROMPTS)[::2] == alone


def test_samples_continue_after_others_have_ended(network: RecurrentNetwork) -> None:
    config = SampleConfig(seed=3, lines=1, length=80)
    sampler = Sampler(predictor=network, config=config)
    generations = sampler.start(PROMPTS)
    ended = ["".join(pieces) for pieces in zip(*sampler.generate(generations), strict=True)]
    free = texts(Sampler(predictor=network, config=SampleConfig(seed=3, length=80)), PROMPTS)
    assert ended == [line if "\n" not in line else line[: line.index("\n") + 1] for line in free]
    assert {generation.ended_by for generation in generations} <= {"lines", "length"}
    assert [generation.num_tokens for generation in generations] == [len(line) for line in ended]


def test_without_a_seed_texts_differ_and_can_be_repeated_with_their_seeds(network: RecurrentNetwork) -> None:
    sampler = Sampler(predictor=network, config=SampleConfig(length=30))
    first, second = (sampler.start([""]) for _ in range(2))
    assert first[0].seed != second[0].seed
    again = Sampler(predictor=network, config=SampleConfig(length=30, seed=first[0].seed))
    assert [*sampler.generate(first)] == [*again.generate(again.start([""]))]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_stop_string_ends_the_text_and_is_not_part_of_it(network: RecurrentNetwork, size: int) -> None:
    free = text(network, length=200)
    stop = free[50 : 50 + size]
    sampler = Sampler(predictor=network, config=SampleConfig(seed=5, length=200, stop=("@@", stop)))
    (generation,) = sampler.start(["To be"])
    pieces = [piece for (piece,) in sampler.generate([generation])]
    assert "".join(pieces) == free[: free.index(stop)]
    assert generation.ended_by == "stop"


def test_an_incomplete_stop_string_stays_in_the_text(network: RecurrentNetwork) -> None:
    free = text(network, length=80)
    for stop in (free[30:34] + "@", free[-3:] + "@@", "@"):
        assert text(network, length=80, stop=(stop,)) == free


def test_the_first_complete_one_of_several_stop_strings_ends_the_text(network: RecurrentNetwork) -> None:
    free = text(network, length=200)
    stops = (free[60:64], free[20:23], free[21])
    first = min(stops, key=lambda stop: free.index(stop) + len(stop))
    assert text(network, length=200, stop=stops) == free[: free.index(first)]


def test_greedy_text_has_the_most_probable_token_at_each_step(network: RecurrentNetwork) -> None:
    written = ""
    for _ in range(20):
        tokens = [token for token, _ in next_tokens(network, "To be" + written) if token != network.tokenizer.tokens[0]]
        written += tokens[0]
    assert text(network, greedy=True, length=20) == written


def test_a_repeat_penalty_reduces_repetitions(network: RecurrentNetwork) -> None:
    plain, penalised = (text(network, length=15, greedy=True, repeat_penalty=penalty) for penalty in (1.0, 1000.0))
    assert len(set(penalised)) == 15 > len(set(plain))


def test_the_nll_is_that_of_the_unmodified_model(network: RecurrentNetwork) -> None:
    sampler = Sampler(
        predictor=network, config=SampleConfig(seed=1, length=25, temperature=0.5, top_k=4), with_nll=True
    )
    (generation,) = sampler.start(["To"])
    written = "".join(piece for (piece,) in sampler.generate([generation]))
    expected, preceding = 0.0, "To"
    for char in written:
        expected -= np.log(dict(next_tokens(network, preceding))[char])
        preceding += char
    assert generation.nll_nats == pytest.approx(expected, abs=1e-4)


def test_filtered_text_repeats_no_run_of_the_training_text() -> None:
    network = RecurrentNetwork(make_checkpoint()[1])
    config = SampleConfig(seed=1, length=300, count=3)
    sampler = Sampler(predictor=network, config=config, novelty_filter=NoveltyFilter(VERSE, 3))
    free = text(network, "To b", seed=1, length=300)
    assert len(TrainingText(VERSE).longest_copy(free).text) >= 3
    for written in texts(sampler, ["To b"]):
        whole = "To b" + written
        assert not TrainingText(VERSE).copied_runs(whole, 3)[2:].any()


def test_a_filter_that_excludes_every_token_is_an_error() -> None:
    network = RecurrentNetwork(make_checkpoint("ab" * 10)[1])
    config = SampleConfig(seed=1, length=20)
    sampler = Sampler(predictor=network, config=config, novelty_filter=NoveltyFilter("ab", 1))
    with pytest.raises(NoveltyError, match=r"novel 1: .* use a larger value") as raised:
        list(sampler.stream())
    assert raised.value.fields == ("novel",)


def test_memory_does_not_grow_with_the_length_of_the_text(network: RecurrentNetwork) -> None:
    stream = Sampler(predictor=network, config=SampleConfig(seed=1, length=-1, stop=("@",), lines=10**9)).stream()
    for _ in itertools.islice(stream, 3000):
        pass
    tracemalloc.start()
    for _ in itertools.islice(stream, 6000):
        pass
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 100_000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stop": ("",)}, "stop"),
        ({"beam": 3, "top_k": 2}, "omit top_k"),
        ({"beam": 3, "length": -1}, "set length"),
        ({"beam": 3, "count": 4}, "count 4"),
        ({"beam": 3, "greedy": True}, "greedy"),
        ({"lines": 0}, "lines 0: must be at least 1"),
    ],
)
def test_errors_name_the_settings_that_contradict_each_other(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SampleConfig.pick(settings)


def test_the_length_is_unlimited_by_default_only_if_lines_is_set() -> None:
    assert SampleConfig().limit == 500
    assert SampleConfig(lines=3).limit == 30_000
    assert SampleConfig(lines=3, length=7).limit == 7
