import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.cli.durations import duration_text, parse_duration
from tests.conftest import VERSE, Charlm

AMOUNTS = st.decimals(min_value=0, max_value=10**6, places=3)
SECONDS = {"h": 3600, "m": 60, "s": 1}


@given(AMOUNTS)
def test_a_number_alone_is_in_seconds(amount: object) -> None:
    assert parse_duration(str(amount)) == float(str(amount))


@given(st.dictionaries(st.sampled_from("hms"), AMOUNTS, min_size=1), st.sampled_from(["", " "]), st.booleans())
def test_amounts_with_units_are_added(amounts: dict[str, object], gap: str, upper: bool) -> None:
    text = gap.join(f"{amounts[unit]}{gap}{unit}" for unit in SECONDS if unit in amounts)
    expected = sum(float(str(amount)) * SECONDS[unit] for unit, amount in amounts.items())
    assert parse_duration(text.upper() if upper else text) == pytest.approx(expected)


@given(st.text(alphabet="0123456789.hms -+e", max_size=8))
def test_any_other_text_is_refused_as_float_refuses_it(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert math.isfinite(seconds) or "e" in text
    assert any(char.isdigit() for char in text)


@given(st.decimals(min_value="0.001", max_value=6 * 10**7, places=3))
def test_the_text_of_a_duration_is_read_as_the_same_duration(amount: object) -> None:
    seconds = float(str(amount))
    assert parse_duration(duration_text(seconds)) == pytest.approx(seconds, abs=1e-3)


@pytest.mark.parametrize("text", ["1s", "1.5s", "1m30s", "2m", "1h", "1h30m", "2h0.5s"])
def test_a_duration_is_shown_with_its_largest_units(text: str) -> None:
    assert duration_text(parse_duration(text)) == text


@pytest.mark.parametrize("text", ["", " ", "s", "h5", "5s5m", "5m5m", "1.2.3s", "-5s", "5 parsecs", "٣s", "1e3s"])
def test_a_duration_has_each_unit_once_in_order(text: str) -> None:
    with pytest.raises(ValueError, match="could not convert"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--time 5x", "Invalid value for '--time': '5x' is not a duration: write 90s, 2m, 1h or 1h30m, or a number of"),
        ("--time 0s", "Invalid value for '--time': 0.0 is not in the range"),
        ("--time nan", "Invalid value for '--time': nan is not a number"),
        ("--time 2m --minutes 2", "--time and --minutes contradict each other: give only one of them"),
        ("--time 2m --steps 2", "--time and --steps contradict each other: give only one of them"),
        ("--time 2m --cell ngram", "--cell ngram has no network, so that nothing is updated: omit --time"),
        ("--save-every 0m", "--save-every 0.0: must be above 0"),
        ("--save-every fast", "Invalid value for '--save-every': 'fast' is not a duration"),
    ],
)
def test_an_impossible_duration_is_a_usage_error(arguments: str, message: str, charlm: Charlm) -> None:
    done = charlm("train", "hello", *arguments.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert f"Error: {message}" in done.stderr


@pytest.mark.parametrize(("given", "minutes"), [("90s", 1.5), ("2m", 2.0), ("1h", 60.0), ("120", 2.0)])
def test_time_is_minutes_with_a_unit(given: str, minutes: float, charlm: Charlm) -> None:
    Path("verse.txt").write_text(VERSE, encoding="utf-8")
    shape = ("--hidden", "8", "--layers", "1", "--batch-size", "1", "--seq-len", "8")
    plan = charlm("train", "verse.txt", "--time", given, "--plan", *shape)
    assert f"\n--minutes\t{minutes:.3g}\tgiven\n" in plan.stdout


def test_a_saving_interval_has_a_unit(charlm: Charlm) -> None:
    plan = charlm("train", "hello", "--steps", "2", "--save-every", "1m30s", "--plan")
    assert "\n--save-every\t90\tgiven\n" in plan.stdout
