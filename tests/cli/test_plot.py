from pathlib import Path

import pytest
from click.testing import CliRunner

from charlm.cli import main
from tests.cli.test_curves import entry, write_log
from tests.conftest import Charlm


def test_runs_are_plotted_together_in_the_terminal(charlm: Charlm) -> None:
    write_log("one", [entry(10, 3.0), entry(20, 2.0, 2.5)])
    write_log("two", [entry(10, 3.1), entry(30, 2.1, 2.4)])
    done = charlm("plot", "one", "two")
    assert done.returncode == 0, done.stderr
    assert "a one" in done.stdout
    assert "b two" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_losses_of_a_classifier_are_per_sample() -> None:
    write_log("lm", [entry(10, 3.0), entry(20, 2.0, 2.5)])
    write_log("films", [{**entry(10, 0.6, 0.5), "train_accuracy": 0.7}])
    films, both = (CliRunner().invoke(main, ["plot", *runs]).stdout for runs in (["films"], ["lm", "films"]))
    assert "loss in nats per sample:" in films
    assert "loss in nats per token or sample:" in both


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_image_is_written(charlm: Charlm, suffix: str) -> None:
    write_log("one", [entry(10, 3.0), entry(20, 2.0, 2.5)])
    done = charlm("plot", "-o", f"losses.{suffix}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"losses.{suffix}\n"
    assert Path(f"losses.{suffix}").stat().st_size > 1000


def test_unknown_image_format_is_a_usage_error(charlm: Charlm) -> None:
    write_log("one", [entry(10, 3.0)])
    done = charlm("plot", "-o", "losses.docx")
    assert done.returncode == 2
    assert "--out" in done.stderr
