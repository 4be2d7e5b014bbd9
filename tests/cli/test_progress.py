import io
import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.cli.progress import ProgressView
from charlm.cli.status import StatusLine, bar_text
from charlm.cli.tables import print_table
from charlm.config import TrainConfig
from charlm.training.progress import LossUnits, Progress


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
    view = ProgressView(TrainConfig(steps=100), LossUnits(), StatusLine(), quiet=False)
    view(progress(60, step))
    view(progress(61, step + 1))
    assert capsys.readouterr().err == f"{told}1.500 nats, 2.164 bits/char, 1,000 chars/s, epoch 0.1\n"


def test_a_model_that_has_learnt_before_is_shown_before_its_first_update(capsys: pytest.CaptureFixture[str]) -> None:
    view = ProgressView(TrainConfig(steps=100), LossUnits(), StatusLine(), quiet=False)
    view(replace(progress(5, 0), train_nats=math.nan, val_nats=2.25))
    assert capsys.readouterr().err == "  0%  before the first update, validation 2.250\n"


def test_by_the_clock_the_time_left_is_the_clock_s(capsys: pytest.CaptureFixture[str]) -> None:
    ProgressView(TrainConfig(minutes=2), LossUnits(), StatusLine(), quiet=False)(progress(60, 40))
    assert "1:00 left" in capsys.readouterr().err


def test_log_line_shows_a_validation_loss_only_once(capsys: pytest.CaptureFixture[str]) -> None:
    view = ProgressView(TrainConfig(minutes=2), LossUnits(), StatusLine(), quiet=False)
    for seconds, val_nats in ((10, None), (20, 2.25), (30, None), (35, 2.125), (40, None), (50, None)):
        view(replace(progress(seconds, seconds), val_nats=val_nats))
    lines = capsys.readouterr().err.splitlines()
    assert [re.findall(r"validation (.*?),", line) for line in lines] == [[], ["2.250"], [], ["2.125"], []]


class Terminal(io.StringIO):
    """Stream that claims to be a terminal; `screen` has what a terminal would show."""

    def isatty(self) -> bool:
        return True

    @property
    def screen(self) -> list[str]:
        lines = []
        for line in self.getvalue().split("\n"):
            shown = ""
            for text in line.split("\r"):
                shown = text + shown[len(text) :]
            lines.append(shown.rstrip())
        return lines


def test_bar_is_replaced_by_warnings_and_by_nothing_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with StatusLine() as status:
        status.show("reading a text with a long name")
        assert terminal.screen == ["reading a text with a long name"]
        status.show("short")
        assert terminal.screen == ["short"]
        status._next_draw = 0
        view = ProgressView(TrainConfig(minutes=2), LossUnits(), status, quiet=False)
        view(replace(progress(60, 50), val_nats=2.25))
        (bar,) = terminal.screen
        assert bar.startswith(" 50%|█████")
        assert bar.endswith("| 1:00 left, 1.500 nats, validation 2.250, epoch 0.1")
        assert len(bar) == 79
        view.warn("the disk is full")
    assert terminal.screen == ["Warning: the disk is full", ""]


def test_status_line_is_silent_if_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with StatusLine() as status:
        status.show("reading the text")
    assert capsys.readouterr().err == ""


@given(fraction=st.floats(0, 1), columns=st.integers(30, 200), utf8=st.booleans())
def test_bar_fills_its_columns_and_drops_texts_of_high_rank(fraction: float, columns: int, utf8: bool) -> None:
    parts = {"1:38 left": 0, "1.500 nats": 1, "2.164 bits/char": 5, "validation 1.4": 2, "1,000 chars/s": 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("locale.getencoding", lambda: "UTF-8" if utf8 else "ANSI_X3.4-1968")
        text = bar_text(fraction, parts, columns)
    percentage, bar, texts = text.split("|")
    assert len(text) == columns
    assert len(bar) >= 10
    assert abs(len(bar.rstrip()) - fraction * len(bar)) <= 1
    assert text.isascii() or utf8
    assert abs(int(percentage[:-1]) - 100 * fraction) <= 0.5 + 1e-9
    shown = texts.strip().split(", ")
    assert shown == [part for part in parts if part in shown]
    dropped = [rank for part, rank in parts.items() if part not in shown]
    assert max(parts[part] for part in shown) < min(dropped, default=9)


def test_table_is_wrapped_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    rows = [("model", "file", "y" * 50), ("model", "kind", "char"), ("", "", ""), ("text", "", "a\tb\x1b")]
    print_table(rows, err=True)
    assert terminal.getvalue().count("y") == 50
    lines = re.sub(r"\x1b\[\d*m", "", terminal.getvalue()).splitlines()
    assert max(map(len, lines)) <= 40
    assert sum(line.startswith("model") for line in lines) == 1
    print_table(rows)
    assert capsys.readouterr().out.splitlines() == [
        f"model\tfile\t{'y' * 50}",
        "model\tkind\tchar",
        "text\t\ta" + r"\tb\x1b",
    ]
