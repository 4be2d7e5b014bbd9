import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from charlm.cli import main
from charlm.cli.ls import COLUMNS, MIN_NAME_WIDTH, _cells, _table
from charlm.engine.checkpoint import CLASSIFIER_FORMAT, METADATA_KEY, save_checkpoint, write_model_file
from charlm.engine.run_summary import RunSummary
from charlm.engine.runs import Run
from tests.conftest import Charlm, make_checkpoint

CELLS = st.text(alphabet="abcdefgh-.1234567890", max_size=30)
ROWS = st.lists(st.fixed_dictionaries(dict.fromkeys(COLUMNS, CELLS)), max_size=4)


def save_run(name: str, seconds_ago: float, metrics: dict[str, Any], corpus: object = "poems") -> Path:
    path = Path("checkpoints", name, "model.safetensors")
    metadata = {"metrics": metrics, "corpus": {"name": corpus}}
    save_checkpoint(path, replace(make_checkpoint()[1], metadata=metadata))
    then = time.time() - seconds_ago
    os.utime(path, (then, then))
    return path


def listed(*arguments: str) -> Any:  # noqa: ANN401 - JSON
    return json.loads(CliRunner().invoke(main, ["ls", "--json", *arguments], catch_exceptions=False).stdout)


def test_runs_are_listed_newest_first_with_their_facts() -> None:
    old = save_run("old", 7200, {"val_nats": 1.25, "val_bits_per_char": 1.8})
    save_run("new", 60, {"train_nats": 1.0}, corpus=["not a name"])
    first, second, *included = listed()
    assert (first["name"], first["val_nats"], first["corpus"]) == ("new", None, None)
    assert {name: second[name] for name in ("name", "val_nats", "val_bits_per_char", "corpus", "included")} == {
        "name": "old",
        "val_nats": 1.25,
        "val_bits_per_char": 1.8,
        "corpus": "poems",
        "included": False,
    }
    assert second["bytes"] == old.stat().st_size
    assert second["path"] == "checkpoints/old"
    assert second["modified"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(old.stat().st_mtime)))
    assert [entry["name"] for entry in included if entry["included"]] == ["shakespeare"]


def test_a_classifier_is_listed_with_its_samples() -> None:
    path = Path("checkpoints/mood/classifier.safetensors")
    story = {"samples": {"sources": ["good.txt", "bad.txt"]}, "metrics": {"val_nats": 0.5}}
    header = {"format": CLASSIFIER_FORMAT, "format_version": "1", METADATA_KEY: json.dumps(story)}
    write_model_file(path, header, {"weight": np.zeros(2)})
    entry = listed()[0]
    assert (entry["name"], entry["corpus"], entry["val_nats"]) == ("mood", "good.txt bad.txt", 0.5)
    assert entry["bytes"] == path.stat().st_size


def test_a_run_hides_the_included_model_of_its_name() -> None:
    save_run("shakespeare", 1, {})
    assert [(entry["name"], entry["included"]) for entry in listed()] == [("shakespeare", False)]


def test_a_run_in_training_and_one_without_a_readable_model_are_listed(charlm: Charlm) -> None:
    good = save_run("good", 100, {"val_nats": 2.0})
    torn = Path("checkpoints/torn/model.safetensors")
    torn.parent.mkdir()
    torn.write_bytes(good.read_bytes()[:50])
    last = Path("checkpoints/started/last.safetensors")
    last.parent.mkdir()
    shutil.copy(good, last)
    with Run(last.parent).locked():
        facts = {entry["name"]: entry for entry in listed()}
    assert facts["started"]["training"]
    assert facts["started"]["bytes"] is None
    assert facts["started"]["corpus"] == "poems"
    assert facts["torn"]["val_nats"] is None
    assert not facts["torn"]["training"]
    done = charlm("ls")
    assert done.returncode == 0
    assert done.stderr == "Note: checkpoints/torn/model.safetensors: not a model file, or truncated\n"
    assert charlm("ls", "-q").stderr == ""


def test_a_pipe_gets_a_table_with_one_line_per_run(charlm: Charlm) -> None:
    path = save_run("run\x1b[31m", 7200, {"val_nats": 1.25, "val_bits_per_char": float("inf")}, corpus="two words")
    header, line, *_ = charlm("ls").stdout.splitlines()
    assert header.split("\t") == ["name", "val_nats", "val_bits_per_char", "bytes", "modified", "corpus"]
    name, nats, bits, size, modified, corpus = line.split("\t")
    assert (name, nats, bits, corpus) == ("run\\x1b[31m", "1.250000", "", "two words")
    assert (int(size), len(modified)) == (path.stat().st_size, len("2026-01-01T00:00:00Z"))


def test_an_empty_folder_has_the_included_model_and_a_note(charlm: Charlm) -> None:
    done = charlm("ls")
    assert done.stdout.splitlines()[1].startswith("shakespeare\t1.258279\t1.815313\t")
    assert done.stderr == "Note: ./checkpoints has no runs; charlm train makes one\n"


@pytest.mark.parametrize(
    ("columns", "headings"),
    [
        (80, list(COLUMNS)),
        (40, ["name", "nats", "size", "age", "corpus"]),
        (34, ["name", "nats", "age", "corpus"]),
        (14, ["name", "nats"]),
        (8, ["name"]),
    ],
)
def test_a_narrow_terminal_shows_fewer_columns(columns: int, headings: list[str]) -> None:
    entry = RunSummary(name="run", path=Path("run"), val_nats=1.2957, num_bytes=5_877_402, corpus="poems", modified=0)
    assert _table([_cells(entry)], columns).splitlines()[0].split() == headings


@given(ROWS, st.integers(0, 200))
def test_a_table_fits_into_the_terminal(rows: list[dict[str, str]], columns: int) -> None:
    lines = _table(rows, columns).split("\n")
    assert len(lines) == 1 + len(rows)
    assert max(map(len, lines)) <= max(columns, MIN_NAME_WIDTH)


@pytest.mark.parametrize(
    ("seconds", "age"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (7300, "2 h"), (86400 * 400, "400 d"), (-50, "0 s")],
)
def test_an_age_has_one_unit(seconds: float, age: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e9)
    assert _cells(RunSummary(name="run", path=Path("run"), modified=1e9 - seconds))["age"] == age


@pytest.mark.parametrize(
    ("num_bytes", "size"), [(0, "0 B"), (999, "999 B"), (5_877_402, "5.9 MB"), (12_345, "12 kB"), (3 * 10**9, "3.0 GB")]
)
def test_a_size_has_one_unit(num_bytes: int, size: str) -> None:
    assert _cells(RunSummary(name="run", path=Path("run"), num_bytes=num_bytes))["size"] == size
