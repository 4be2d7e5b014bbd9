import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from charlm.engine.beam import beam_search
from charlm.engine.exclusions import Exclusions
from charlm.engine.item_sampler import ItemSampler, KnownItems, format_of_model
from charlm.engine.novelty import Comparison
from charlm.engine.rnn import RecurrentNetwork
from charlm.engine.sampler import Sampler, check_end
from charlm.errors import ConfigError, NoveltyError, SamplingError
from charlm.item_config import ItemConfig
from charlm.sample_config import SampleConfig
from charlm.text.characters import CharTokenizer
from charlm.text.items import ItemFormat
from charlm.text.tokenizer import WordTokenizer
from tests.conftest import make_checkpoint

LINES = ItemFormat(kind="line", separator="\n")


@pytest.fixture(scope="module")
def network() -> RecurrentNetwork:
    """An untrained model of four letters and the newline: its items are short and of all kinds."""
    return RecurrentNetwork(make_checkpoint("abcd\n")[1])


def generate(
    network: RecurrentNetwork,
    prompts: Sequence[str] = ("",),
    *,
    form: ItemFormat = LINES,
    known: KnownItems | None = None,
    **settings: Any,
) -> list[str]:
    """Return generated items, with their prompts."""
    config = SampleConfig.pick({"temperature": 1.0, "seed": 1, **settings})
    sampler = Sampler(predictor=network, config=config, separator=form.separator)
    items = ItemSampler(sampler=sampler, form=form, config=ItemConfig.pick(settings), known=known)
    return [generation.prompt + text for generation, text in items.stream(prompts)]


def test_items_satisfy_every_condition(network: RecurrentNetwork) -> None:
    known = KnownItems(["abc", "dab", "cab"], Comparison())
    found = generate(network, items=100, unique=True, new=True, known=known, min_chars=3, max_chars=5, match="^[a-c]")
    assert len(set(found)) == len(found) == 100
    assert all(3 <= len(item) <= 5 and re.match("[abcd]+$", item) and item[0] in "abc" for item in found)
    assert not {"abc", "dab", "cab"} & set(found)


def test_items_without_conditions_are_the_lines_of_consecutive_seeds(network: RecurrentNetwork) -> None:
    config = SampleConfig(temperature=1.0, stop=("\n",), seed=5, count=200, length=100)
    sampler = Sampler(predictor=network, config=config)
    texts = [text for _, text in sampler.complete(sampler.start([""]))]
    expected = [text for text in texts if text][:30]
    assert generate(network, items=30, seed=5) == expected
    assert generate(network, items=30, seed=5) == expected


def test_items_continue_each_prompt(network: RecurrentNetwork) -> None:
    found = generate(network, ["ab", "d"], items=4, max_chars=6)
    assert [item[:2] if index < 4 else item[:1] for index, item in enumerate(found)] == ["ab"] * 4 + ["d"] * 4
    with pytest.raises(ConfigError, match=r"prompt 'a\\nb': contains the separator"):
        generate(network, ["a\nb"], items=1)


def test_rejections_are_counted_and_bounded(network: RecurrentNetwork) -> None:
    message = r"^0 of 5 items generated, and the last 40 candidates rejected; rejected in all: .*not found by match z"
    with pytest.raises(SamplingError, match=message) as caught:
        generate(network, items=5, match="z", tries=40)
    assert sum(map(int, re.findall(r"(\d+) (?:not|empty|without)", str(caught.value)))) == 40
    with pytest.raises(SamplingError, match=r"^4 of 9 items .* generated before \(unique\)"):
        generate(network, items=9, unique=True, max_chars=1, tries=200)
    with pytest.raises(SamplingError, match="without an end within 3 tokens"):
        generate(network, items=1, min_chars=50, length=3, tries=5)


def test_the_longest_items_are_not_cut(network: RecurrentNetwork) -> None:
    assert {len(item) for item in generate(network, items=300, max_chars=2)} == {1, 2}


def test_another_separator_and_stops(network: RecurrentNetwork) -> None:
    found = generate(network, items=20, form=ItemFormat(kind="da", separator="da"))
    assert all("da" not in item for item in found)
    stopped = generate(network, items=40, stop=("b",), keep_stop=True)
    assert {item.count("b") for item in stopped} == {0, 1}
    assert all(item.endswith("b") for item in stopped if "b" in item)
    assert all("b" not in item for item in generate(network, items=40, stop=("b",)))


@pytest.mark.parametrize("settings", [{"lines": 2}, {"count": 2}, {"beam": 2, "temperature": 0.8}, {"length": -1}])
def test_settings_of_texts_are_refused(network: RecurrentNetwork, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="items"):
        generate(network, items=1, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"match": "("}, r"match \(: not a valid regular expression \(missing"),
        ({"min_chars": 4, "max_chars": 3}, "min_chars 4 is above max_chars 3"),
        ({"items": 0}, "items 0: must be at least 1"),
    ],
)
def test_conditions_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ItemConfig(**settings)


def test_known_items_ignore_what_the_model_does_not_distinguish() -> None:
    words = WordTokenizer.from_text(["Ana and Roy\n"], lowercase=True)
    known = KnownItems(["Roy"], Comparison.of_model(words))
    assert "roy" in known
    assert "ro" not in known
    assert "roy" not in KnownItems(["Roy"], Comparison())


@pytest.mark.parametrize(
    "recorded",
    [None, 3, {}, {"kind": "", "separator": "x", "longest": 3}, {"kind": "line", "separator": 1, "longest": 2}],
)
def test_invalid_metadata_is_that_of_a_text(recorded: object) -> None:
    assert format_of_model({"items": recorded}) == (None, 1000)


def test_a_text_of_a_model_of_a_list_starts_anew_after_each_separator(network: RecurrentNetwork) -> None:
    config = SampleConfig(temperature=0, length=40)
    sampler = Sampler(predictor=network, config=config, separator="\n")
    text = "".join(piece for (piece,) in sampler.stream("ca\nb\n"))
    plain = "".join(piece for (piece,) in Sampler(predictor=network, config=config).stream(""))
    assert text == plain if "\n" not in plain else text.split("\n")[0] == plain.split("\n")[0]
    drawn = SampleConfig(temperature=1.0, length=300, seed=4)
    for one, other in zip(*(_logits(network, separator, drawn) for separator in ("\n", "\n")), strict=True):
        np.testing.assert_array_equal(one, other)


def _logits(network: RecurrentNetwork, separator: str, config: SampleConfig) -> list[Any]:
    sampler = Sampler(predictor=network, config=config, separator=separator, with_nll=True)
    generations = sampler.start([""])
    text = "".join(piece for (piece,) in sampler.generate(generations))
    total = generations[0].nll_nats
    # Each item by itself has the same probability as within the text.
    expected = 0.0
    ids = network.tokenizer.encode(text)
    state, outputs = network.zero_state(1), None
    previous = network.tokenizer.encode("\n")
    for token_id, char in zip(ids, text, strict=True):
        outputs = network.outputs(np.array([[previous[-1]]]), state)
        logits = network.logits(outputs[:, -1]).astype(np.float64)[0]
        expected -= logits[token_id] - np.log(np.exp(logits).sum())
        previous = np.array([token_id])
        if char == "\n":
            state = network.zero_state(1)
    assert total == pytest.approx(expected, rel=1e-4)
    return [total]


def test_banned_texts_are_never_written(network: RecurrentNetwork) -> None:
    config = SampleConfig(temperature=1.0, seed=2, length=2000, ban=("ab", "c", "dd\n"))
    text = "".join(piece for (piece,) in Sampler(predictor=network, config=config).stream("a"))
    assert not any(banned in "a" + text for banned in config.ban)
    assert {"a", "b", "d", "\n"} == set(text)
    (best,) = beam_search(network, SampleConfig(beam=1, length=30, ban=("a", "b", "\n")), "")
    assert set(best.text) <= {"c", "d"}


def test_a_ban_of_everything_is_an_error(network: RecurrentNetwork) -> None:
    config = SampleConfig(seed=2, length=5, ban=("a", "b", "c", "d", "\n"))
    with pytest.raises(SamplingError, match="ban: every token after 'ab' would write a banned text"):
        list(Sampler(predictor=network, config=config).stream("ab"))
    with pytest.raises(SamplingError, match="ban: "):
        beam_search(network, SampleConfig(beam=2, length=5, ban=config.ban), "ab")
    for ban in ("", "a" * 1001):
        with pytest.raises(ConfigError, match="ban: a text must have from 1 to 1000 characters"):
            SampleConfig(ban=(ban,))
    assert isinstance(Exclusions(ban=("a",)).error("x"), SamplingError)
    assert not isinstance(Exclusions(ban=("a",)).error("x"), NoveltyError)


def test_the_stop_text_can_be_kept(network: RecurrentNetwork) -> None:
    texts = []
    for keep_stop in (False, True):
        config = SampleConfig(seed=3, temperature=1.0, stop=("bc", "da"), length=500, keep_stop=keep_stop)
        texts.append("".join(piece for (piece,) in Sampler(predictor=network, config=config).stream()))
    assert texts[1].removeprefix(texts[0]) in {"bc", "da"}


def test_a_text_that_cannot_end_is_refused() -> None:
    tokenizer = CharTokenizer.from_text("abc")
    for config in (SampleConfig(lines=1), SampleConfig(lines=1, length=-1), SampleConfig(stop=("x",), length=-1)):
        with pytest.raises(ConfigError, match=r"the model cannot write .* so that the text has no end; set length"):
            check_end(tokenizer, config)
    for config in (
        SampleConfig(lines=1, length=9),
        SampleConfig(stop=("x",)),
        SampleConfig(stop=("x", "ab"), length=-1),
        SampleConfig(length=-1),
    ):
        check_end(tokenizer, config)
    words = WordTokenizer.from_text(["the cat\n"])
    check_end(words, SampleConfig(stop=("he c",), length=-1))
    with pytest.raises(ConfigError, match="'dog'"):
        check_end(words, SampleConfig(stop=("dog",), length=-1))
