import json
from pathlib import Path

import pytest

from charlm.cli.curves import Curve, draw, loss_range, read_curves
from charlm.errors import RunError


def write_log(name: str, entries: list[object], end: str = "") -> None:
    folder = Path("checkpoints") / name
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries) + end, encoding="utf-8")


def entry(step: int, train: float, val: float | None = None) -> dict[str, float | None]:
    return {"step": step, "seconds": step / 10, "epoch": step / 100, "train_nats": train, "val_nats": val}


def test_curves_have_the_losses_of_the_log() -> None:
    write_log("one", [entry(10, 3.0), entry(20, 2.0, 2.5)])
    training, validation = read_curves("one", "seconds")
    assert training == Curve(run="one", kind="training", points=[(1.0, 3.0), (2.0, 2.0)])
    assert validation == Curve(run="one", kind="validation", points=[(2.0, 2.5)])


def test_incomplete_lines_and_losses_that_are_not_finite_are_skipped() -> None:
    write_log("one", [entry(10, 3.0), entry(20, float("nan"))], end='{"step": 30, "train')
    assert [curve.points for curve in read_curves("one", "step")] == [[(10.0, 3.0)]]


@pytest.mark.parametrize("name", ["absent", None])
def test_missing_run_is_an_error(name: str | None) -> None:
    with pytest.raises(RunError, match="no run"):
        read_curves(name, "step")


def test_empty_log_is_an_error() -> None:
    write_log("empty", [])
    with pytest.raises(RunError, match="no losses"):
        read_curves("empty", "step")


def test_falling_curve_runs_from_upper_left_to_lower_right() -> None:
    points = [(float(x), 10.0 - x) for x in range(11)]
    lines = draw([Curve(run="r", kind="validation", points=points)], "steps", width=60, height=11).splitlines()
    places = [(row, line.index("a")) for row, line in enumerate(lines[:11]) if "a" in line[9:]]
    assert places == sorted(places, key=lambda place: place[1])
    assert max(len(line) for line in lines[:13]) <= 60


def test_steep_start_of_a_curve_may_lie_above_the_drawing() -> None:
    points = [(0.0, 100.0)] + [(float(x), 2.0 - x / 100) for x in range(10, 101)]
    low, high = loss_range([Curve(run="r", kind="training", points=points)])
    assert 0.9 < low < 1.0
    assert 1.9 < high < 2.1


def test_curve_of_one_point_is_drawn() -> None:
    assert "a" in draw([Curve(run="r", kind="validation", points=[(1.0, 1.0)])], "steps", width=40, height=8)
