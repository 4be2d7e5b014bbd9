import math
import re
from contextlib import nullcontext
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.config import ModelConfig, TokenizerConfig, TrainConfig
from charlm.errors import ConfigError
from charlm.lessons import LessonOptions
from charlm.sample_config import SampleConfig
from charlm.settings import Rule, from_dict
from charlm.training.state import Counters

CLASSES = [TokenizerConfig, ModelConfig, TrainConfig, SampleConfig]
ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers())


@pytest.mark.parametrize("kind", CLASSES)
def test_every_setting_has_a_help_and_a_default_that_keeps_its_rule(kind: type[Any]) -> None:
    kind()
    for spec in fields(kind):
        if "rule" not in spec.metadata:
            continue
        rule: Rule = spec.metadata["rule"]
        assert rule.help.endswith((".", ")"))
        assert rule.group or not rule.flags
        assert all(flag.startswith("-") for flag in rule.flags)


NUMBERS = [
    (kind, spec.name)
    for kind in (*CLASSES, LessonOptions)
    for spec in fields(kind)
    if "rule" in spec.metadata
    and str(spec.type).removesuffix(" | None") in {"<class 'int'>", "<class 'float'>", "int", "float"}
]
"""All settings that are numbers."""

HOSTILE_NUMBERS = [math.inf, -math.inf, math.nan, 2**63, 2**64, -1, 1e308, 0]


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
def test_every_number_has_a_finite_range_and_refuses_all_other_numbers(kind: type[Any], name: str) -> None:
    rule: Rule = kind.__dataclass_fields__[name].metadata["rule"]
    low, high = rule.minimum if rule.above is None else rule.above, rule.maximum if rule.below is None else rule.below
    assert low is not None
    assert high is not None
    assert -1 <= low < high <= 2**63
    assert rule.interval("X").count("<") == 2
    base = {"tokenizer": "word"} if kind is TokenizerConfig else {"length": 5, "beam": 1} if name == "count" else {}
    for value in HOSTILE_NUMBERS:
        inside = low <= value <= high and value not in {rule.above, rule.below}
        with nullcontext() if inside else pytest.raises(ConfigError, match=re.escape(f"{name} {value}: must be")):
            kind(**{**base, name: value})


def test_a_range_is_an_inequality() -> None:
    assert Rule(help="", minimum=0, maximum=0.5).interval("X") == "0<=X<=0.5"
    assert Rule(help="", above=0, maximum=10**6).interval("N") == "0<N<=10^6"
    assert Rule(help="", minimum=0, below=2**63).interval("N") == "0<=N<2^63"
    assert Rule(help="", choices=("a",)).interval("N") == ""


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (ModelConfig, {"num_layers": 0}, "num_layers 0: must be at least 1"),
        (ModelConfig, {"dropout": 1.0}, "dropout 1.0: must be below 1"),
        (ModelConfig, {"cell": "gpt"}, "cell gpt: must be one of lstm, gru, rnn"),
        (ModelConfig, {"tie_weights": True}, "tie_weights needs embedding_dim"),
        (TrainConfig, {"minutes": 0.0}, "minutes 0.0: must be above 0"),
        (TrainConfig, {"learning_rate": math.nan}, "learning_rate nan: must be a number"),
        (TrainConfig, {"minutes": 1.0, "steps": 1}, "minutes and steps contradict"),
        (SampleConfig, {"temperature": -0.1}, "temperature -0.1: must be at least 0"),
    ],
)
def test_a_setting_out_of_its_range_is_named(kind: type[Any], values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        kind(**values)
    assert set(values) <= {*raised.value.fields, "embedding_dim", "hidden_size"}


def test_pick_takes_what_is_its_own_and_was_given() -> None:
    assert ModelConfig.pick({"hidden_size": 7, "cell": None, "steps": 3}) == ModelConfig(hidden_size=7)


def test_what_is_missing_in_a_file_has_its_default_and_what_is_unknown_is_from_a_newer_version() -> None:
    assert from_dict(ModelConfig, {"hidden_size": 7}) == ModelConfig(hidden_size=7)
    assert from_dict(TrainConfig, {"minutes": 3}) == TrainConfig(minutes=3)
    with pytest.raises(ConfigError, match="unknown setting 'zoneout'"):
        from_dict(ModelConfig, {"zoneout": 0.1})


@given(st.sampled_from([*CLASSES, Counters]), st.data())
def test_any_values_make_settings_that_keep_their_types_or_are_refused(kind: type[Any], data: st.DataObject) -> None:
    values = data.draw(st.dictionaries(st.sampled_from([spec.name for spec in fields(kind)]), ANYTHING, max_size=3))
    try:
        made = from_dict(kind, values)
    except ConfigError:
        return
    for spec in fields(kind):
        value = getattr(made, spec.name)
        assert value is None or type(value) in {type(spec.default), int, float, bool, str}
