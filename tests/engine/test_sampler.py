import itertools
import tracemalloc

import numpy as np
import pytest

from charlm.config import SampleConfig
from charlm.engine.decoding import uniforms
from charlm.engine.novelty import Guard, TrainingText
from charlm.engine.rnn import START, RecurrentNetwork
from charlm.engine.sampler import Sampler, next_tokens
from charlm.errors import ConfigError, NoveltyError
from charlm.text.tokenizer import UNKNOWN_ID
from tests.conftest import VERSE, make_checkpoint

PROMPTS = ["To be", "", "Whether 'tis nobler in the mind", "x", "To be"]


@pytest.fixture
def network() -> RecurrentNetwork:
    return RecurrentNetwork(make_checkpoint(num_layers=2)[1])


def texts(sampler: Sampler, prompts: list[str]) -> list[str]:
    return ["".join(pieces) for pieces in zip(*sampler.write(sampler.writers(prompts)), strict=True)]


def text(network: RecurrentNetwork, prompt: str = "To be", **settings: object) -> str:
    return texts(Sampler(network=network, config=SampleConfig.pick({"seed": 5, "length": 60, **settings})), [prompt])[0]


def plainly_sampled(network: RecurrentNetwork, prompt: str, seed: int, length: int, temperature: float) -> str:
    """One token at a time, everything read anew for each."""
    ids = network.tokenizer.encode(START + prompt).tolist()
    numbers = uniforms(seed)
    for _ in range(length):
        logits = network.logits(network.read([ids], network.zero_state()))[0, -1].astype(float)
        logits[UNKNOWN_ID] = -np.inf
        cumulative = np.cumsum(np.exp(logits / temperature))
        ids.append(int(np.searchsorted(cumulative, next(numbers) * cumulative[-1], side="right")))
    return network.tokenizer.decode(ids)[len(START + prompt) :]


def test_a_text_is_what_plain_sampling_gives(network: RecurrentNetwork) -> None:
    assert text(network, seed=9, length=40, temperature=0.7) == plainly_sampled(network, "To be", 9, 40, 0.7)


def test_the_third_of_eight_samples_is_the_third_alone(network: RecurrentNetwork) -> None:
    eight = texts(Sampler(network=network, config=SampleConfig(seed=20, count=8, length=50)), ["To be"])
    assert len(set(eight)) == 8
    assert eight == [text(network, seed=20 + place, length=50) for place in range(8)]


def test_prompts_together_are_answered_as_each_alone(network: RecurrentNetwork) -> None:
    config = SampleConfig(seed=3, count=2, length=30)
    alone = [text(network, prompt, seed=3 + 2 * place, count=2, length=30) for place, prompt in enumerate(PROMPTS)]
    assert texts(Sampler(network=network, config=config), PROMPTS)[::2] == alone


def test_samples_that_end_let_the_others_go_on(network: RecurrentNetwork) -> None:
    config = SampleConfig(seed=3, lines=1, length=80)
    sampler = Sampler(network=network, config=config)
    writers = sampler.writers(PROMPTS)
    ended = ["".join(pieces) for pieces in zip(*sampler.write(writers), strict=True)]
    free = texts(Sampler(network=network, config=SampleConfig(seed=3, length=80)), PROMPTS)
    assert ended == [line if "\n" not in line else line[: line.index("\n") + 1] for line in free]
    assert {writer.ending for writer in writers} <= {"lines", "length"}
    assert [writer.tokens for writer in writers] == [len(line) for line in ended]


def test_without_a_seed_texts_differ_and_their_seeds_give_them_again(network: RecurrentNetwork) -> None:
    sampler = Sampler(network=network, config=SampleConfig(length=30))
    first, second = (sampler.writers([""]) for _ in range(2))
    assert first[0].seed != second[0].seed
    again = Sampler(network=network, config=SampleConfig(length=30, seed=first[0].seed))
    assert [*sampler.write(first)] == [*again.write(again.writers([""]))]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_stop_string_ends_the_text_and_is_left_out(network: RecurrentNetwork, size: int) -> None:
    free = text(network, length=200)
    stop = free[50 : 50 + size]
    sampler = Sampler(network=network, config=SampleConfig(seed=5, length=200, stop=("@@", stop)))
    (writer,) = sampler.writers(["To be"])
    pieces = [piece for (piece,) in sampler.write([writer])]
    assert "".join(pieces) == free[: free.index(stop)]
    assert writer.ending == "stop"


def test_what_only_begins_as_a_stop_string_is_written(network: RecurrentNetwork) -> None:
    free = text(network, length=80)
    for stop in (free[30:34] + "@", free[-3:] + "@@", "@"):
        assert text(network, length=80, stop=(stop,)) == free


def test_of_several_stop_strings_the_first_to_be_whole_counts(network: RecurrentNetwork) -> None:
    free = text(network, length=200)
    stops = (free[60:64], free[20:23], free[21])
    first = min(stops, key=lambda stop: free.index(stop) + len(stop))
    assert text(network, length=200, stop=stops) == free[: free.index(first)]


def test_greedy_text_takes_the_likeliest_token_each_time(network: RecurrentNetwork) -> None:
    written = ""
    for _ in range(20):
        tokens = [token for token, _ in next_tokens(network, "To be" + written) if token != network.tokenizer.tokens[0]]
        written += tokens[0]
    assert text(network, greedy=True, length=20) == written


def test_repeats_become_rare_with_a_penalty(network: RecurrentNetwork) -> None:
    plain, penalised = (text(network, length=15, greedy=True, repeat_penalty=penalty) for penalty in (1.0, 1e9))
    assert len(set(penalised)) == 15 > len(set(plain))


def test_the_costs_are_those_of_the_model_itself(network: RecurrentNetwork) -> None:
    sampler = Sampler(
        network=network, config=SampleConfig(seed=1, length=25, temperature=0.5, top_k=4), with_costs=True
    )
    (writer,) = sampler.writers(["To"])
    written = "".join(piece for (piece,) in sampler.write([writer]))
    wanted, before = 0.0, "To"
    for char in written:
        wanted -= np.log(dict(next_tokens(network, before))[char])
        before += char
    assert writer.nll_nats == pytest.approx(wanted, abs=1e-4)


def test_guarded_text_repeats_no_run_of_the_training_text() -> None:
    network = RecurrentNetwork(make_checkpoint()[1])
    sampler = Sampler(network=network, config=SampleConfig(seed=1, length=300, count=3), guard=Guard(VERSE, 3))
    free = text(network, "To b", seed=1, length=300)
    assert len(TrainingText(VERSE).longest_copy(free).text) >= 3
    for written in texts(sampler, ["To b"]):
        whole = "To b" + written
        assert not TrainingText(VERSE).copied(whole, 3)[2:].any()


def test_a_guard_that_leaves_nothing_to_say_says_so() -> None:
    network = RecurrentNetwork(make_checkpoint("ab" * 10)[1])
    sampler = Sampler(network=network, config=SampleConfig(seed=1, length=20), guard=Guard("ab", 1))
    with pytest.raises(NoveltyError, match=r"--novel 1: .* give a greater number"):
        list(sampler.stream())


def test_a_million_characters_take_no_more_memory_than_a_thousand(network: RecurrentNetwork) -> None:
    stream = Sampler(network=network, config=SampleConfig(seed=1, length=-1, stop=("@",), lines=10**9)).stream()
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
def test_settings_that_make_no_sense_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SampleConfig.pick(settings)


def test_the_length_is_without_end_only_where_lines_end_it() -> None:
    assert SampleConfig().limit == 500
    assert SampleConfig(lines=3).limit == -1
    assert SampleConfig(lines=3, length=7).limit == 7
