"""Tests of `charlm train --field`."""

import json
from pathlib import Path

import click.testing
import numpy as np
import pandas
import pytest
import torch

from charlm.cli import main
from charlm.engine.checkpoint import load_checkpoint
from tests.cli.test_words import StopAfterThree
from tests.conftest import VERSE

LINES = VERSE.splitlines() * 8
SMALL = ["--steps", "6", "--hidden", "8", "--batch-size", "2", "--seq-len", "8", "--items", "none"]


def run(*arguments: object, code: int = 0) -> click.testing.Result:
    """Run the command line in this process, and undo what training changes in it."""
    done = click.testing.CliRunner().invoke(main, list(map(str, arguments)))
    torch.set_flush_denormal(False)
    assert done.exit_code == code, done.output
    return done


@pytest.fixture
def table() -> Path:
    frame = pandas.DataFrame({"id": range(len(LINES)), "text": [line.replace(" ", "\n", 1) for line in LINES]})
    frame.to_csv("t.csv", index=False)
    Path("t.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in LINES), encoding="utf-8")
    Path("t.txt").write_text("".join(line + "\n" for line in LINES), encoding="utf-8")
    return Path("t.csv")


def test_a_model_of_a_column_equals_a_model_of_its_lines(table: Path) -> None:
    run("train", "t.txt", "--name", "lines", *SMALL)
    run("train", table, "--field", "text", "--name", "column", *SMALL)
    run("train", "t.jsonl", "--field", "text", "--name", "json", *SMALL)
    expected = load_checkpoint(Path("checkpoints/lines/model.safetensors"))
    for name in ("column", "json"):
        found = load_checkpoint(Path(f"checkpoints/{name}/model.safetensors"))
        assert found.metadata["corpus"]["sha256"] == expected.metadata["corpus"]["sha256"]
        assert found.metadata["corpus"]["field"] == "text"
        for key, tensor in expected.tensors.items():
            np.testing.assert_array_equal(found.tensors[key], tensor)


def test_a_resumed_training_reads_the_same_column(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--field", "2", "--table", "csv", *SMALL]
    run("train", table, *options, "--name", "whole")
    with monkeypatch.context() as patch:
        patch.setattr("charlm.cli.signals.StopSignals", StopAfterThree)
        run("train", table, *options, "--name", "column", code=130)
        run("train", table, *options, "--name", "changed", code=130)
    assert "--field 1 contradicts 2" in run("train", "--resume", "column", "--field", "1", code=2).stderr
    run("train", "--resume", "column")
    whole, resumed = (load_checkpoint(Path(f"checkpoints/{name}/last.safetensors")) for name in ("whole", "column"))
    for key, tensor in whole.tensors.items():
        np.testing.assert_array_equal(resumed.tensors[key], tensor)
    frame = pandas.read_csv(table)
    frame.text = "To be"
    frame.to_csv(table, index=False)
    assert "differs from the text" in run("train", "--resume", "changed", code=1).stderr


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--table", "csv"], 2, "--table needs --field"),
        (["--field", "words"], 1, "t.csv: no column 'words' in the header"),
        (["--field", "3"], 1, "t.csv: line 1: 2 columns"),
    ],
)
def test_a_field_that_does_not_exist(table: Path, options: list[str], code: int, message: str) -> None:
    assert message in run("train", table, *options, *SMALL, code=code).stderr
