import math
from dataclasses import replace

import pytest

from charlm.cli.progress import ProgressView
from charlm.config import TrainConfig
from charlm.training.progress import Progress


def progress(seconds: float, step: int) -> Progress:
    return Progress(
        step=step,
        epoch=0.1,
        seconds=seconds,
        fraction=step / 100,
        train_nats=1.5,
        val_nats=None,
        best_nats=None,
        tokens_per_second=1000.0,
        learning_rate=0.01,
    )


@pytest.mark.parametrize(("step", "told"), [(1, "  2%  1:38 left, "), (50, " 51%  0:49 left, ")])
def test_the_time_left_is_by_the_updates_seen_not_by_what_came_before_them(
    step: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a minute of planning, or of half a training on a slower machine, an update takes a second."""
    with ProgressView(TrainConfig(steps=100), 1.0, quiet=False) as view:
        view(progress(60, step))
        view(progress(61, step + 1))
    assert capsys.readouterr().err == f"{told}1.500 nats, 2.164 bits/char, 1,000 chars/s, epoch 0.1\n"


def test_a_model_that_has_learnt_before_is_shown_before_its_first_update(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressView(TrainConfig(steps=100), 1.0, quiet=False) as view:
        view(replace(progress(5, 0), train_nats=math.nan, val_nats=2.25))
    assert capsys.readouterr().err == "  0%  before the first update, validation 2.250\n"


def test_by_the_clock_the_time_left_is_the_clock_s(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressView(TrainConfig(minutes=2), 1.0, quiet=False) as view:
        view(progress(60, 40))
    assert "1:00 left" in capsys.readouterr().err
