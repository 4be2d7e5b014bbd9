import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save

from charlm.cli import COMMANDS, main
from charlm.cli.threads import THREAD_VARIABLES, limit_threads

MEGABYTE = 1_000_000


@pytest.mark.parametrize(
    ("requested", "megabytes", "num_sequences", "load", "environment", "expected"),
    [
        (None, 1, 1, 0.0, {}, "1"),  # fits into the cache of one core
        (None, 12, 1, 0.0, {}, "8"),
        (None, 12, 1, 14.5, {}, "2"),  # 16 cores, 14.5 of them busy
        (None, 12, 1, 99.0, {}, "1"),
        (None, 1, 128, 0.0, {}, "5"),  # many sequences justify more threads
        (3, 1, 1, 99.0, {"OMP_NUM_THREADS": "5"}, "3"),
        (None, 12, 1, 0.0, {"OPENBLAS_NUM_THREADS": "5"}, "5"),
    ],
)
def test_number_of_threads_depends_on_model_and_machine(
    requested: int | None,
    megabytes: int,
    num_sequences: int,
    load: float,
    environment: dict[str, str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in THREAD_VARIABLES:
        monkeypatch.setenv(variable, "")  # so that the original value is restored after the test
        monkeypatch.delenv(variable)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    path = tmp_path / "model"
    path.write_bytes(b"x" * (megabytes * MEGABYTE))
    assert limit_threads(requested, path, num_sequences) == 1
    assert os.environ["OPENBLAS_NUM_THREADS"] == expected


def test_an_ngram_model_does_not_justify_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in THREAD_VARIABLES:
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    path, tensors = tmp_path / "model", {"decoder.weight": 3, "ngram/weights.2": 5, "ngram/tokens.2": 2}
    path.write_bytes(save({name: np.zeros(size * MEGABYTE, np.uint8) for name, size in tensors.items()}))
    limit_threads(None, path)
    assert os.environ["OPENBLAS_NUM_THREADS"] == "2"


@pytest.mark.parametrize(("requested", "load", "expected"), [(None, 0.0, 16), (None, 99.0, 16), (3, 0.0, 3)])
def test_independent_threads_use_all_cores(
    requested: int | None, load: float, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in THREAD_VARIABLES:
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    path = tmp_path / "model"
    path.write_bytes(b"x" * (12 * MEGABYTE))
    assert limit_threads(requested, path, 128, independent=True) == expected
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert limit_threads(None, path, 128, independent=True) == 1


PRINT_THREADS = """
import importlib.abc, os, sys
class PrintThreads(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            print("threads", os.environ.get("OPENBLAS_NUM_THREADS"), file=sys.stderr)
sys.meta_path.insert(0, PrintThreads())
from charlm.cli import main
main()
"""
"""Runs a command line and prints the number of threads at the moment when NumPy is imported."""


@pytest.mark.parametrize(
    ("command", "threads"),
    [
        (["score", "--threads", "3"], "1"),  # Python threads divide the lines among them
        (["score", "--total", "--threads", "3"], "3"),
        (["sample", "-n", "1", "--threads", "3"], "3"),
        (["next"], "1"),
    ],
)
def test_number_of_threads_is_set_before_numpy_is_imported(command: list[str], threads: str, model_file: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", PRINT_THREADS, *command, "-m", str(model_file)],
        input="To be\n",
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert f"threads {threads}\n" in done.stderr


def all_options() -> Iterator[tuple[str, click.Option]]:
    """Yield every option, with the path of its command."""
    group = click.Context(main)
    for name in COMMANDS:
        command = main.get_command(group, name)
        subs = command.commands if isinstance(command, click.Group) else {"": command}
        for sub, leaf in subs.items():
            assert leaf is not None
            yield from ((f"{name} {sub}".strip(), param) for param in leaf.params if isinstance(param, click.Option))


def numeric_options() -> Iterator[tuple[str, click.Option, bool]]:
    """Yield every option that takes a number, with the path of its command, and whether a settings class checks it."""
    for command, option in all_options():
        if isinstance(option.type, NUMBER_TYPES):
            yield command, option, type(option.type) in PLAIN_TYPES or option.type.max is None


PLAIN_TYPES = (click.types.IntParamType, click.types.FloatParamType)
NUMBER_TYPES = (*PLAIN_TYPES, click.IntRange, click.FloatRange)
NUMERIC = list(numeric_options())
IDS = [f"{command} {option.opts[-1]}" for command, option, _ in NUMERIC]


@pytest.mark.parametrize(("command", "option", "from_settings"), NUMERIC, ids=IDS)
def test_every_numeric_option_states_a_finite_range_and_refuses_other_numbers(
    command: str, option: click.Option, from_settings: bool, model_file: Path
) -> None:
    context = click.Context(click.Command("x"))
    record = option.get_help_record(context)
    assert record is not None
    assert re.search(r"[\d.]<=?(N|X|TIME)<=?[\d.]", record[1]), record[1]
    if not from_settings:
        assert option.type.min is not None
        assert option.type.max is not None
        assert math.isfinite(option.type.max - option.type.min)
    for value in ("inf", "-inf", "nan", str(2**63), str(2**64), "1e308"):
        arguments = {"train": ["hello"], "lesson": ["reviews"], "vectors nearest": ["T"]}.get(command, [])
        done = CliRunner().invoke(main, [*command.split(), *arguments, option.opts[-1], value], input="")
        assert done.exit_code == 2, (value, done.output)
        assert done.stderr.splitlines()[-1].startswith("Error: ")


NAMING = {"--model", "--name", "--from", "--glove", "--context", "--prime", "--file", "--vs", "--match"}
"""Options whose value is a model, a file or a text."""


def test_no_option_that_names_something_drops_its_first_value(model_file: Path) -> None:
    arguments = {"train": ["hello"], "lesson": ["reviews"], "vectors nearest": ["T"], "vectors similar": ["T", "e"]}
    arguments["vectors analogy"] = ["T", "e", "o"]
    tested = set()
    for command, option in all_options():
        flag = option.opts[-1]
        if flag not in NAMING or f"{command} {flag}" == "score --model":
            continue
        words = [*command.split(), *arguments.get(command, []), flag, "a", flag, "b"]
        done = CliRunner().invoke(main, words, input="")
        assert done.exit_code == 2, (words, done.output)
        assert "is given more than once" in done.stderr
        tested.add(f"{command} {flag}")
    assert {"sample --model", "info --model", "next --model", "novelty --model", "vectors export --model"} <= tested
    assert {"train --name", "train --from", "score --vs", "score --context", "sample --match"} <= tested


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (name, param.opts[-1])
        for name in ("train", "sample", "score", "plot", "lesson")
        for param in (main.get_command(click.Context(main), name) or main).params
        if isinstance(param, click.Option) and (isinstance(param.type, click.Path) or param.metavar == "FILE")
    ],
)
def test_an_empty_name_of_a_file_is_refused(command: str, option: str) -> None:
    done = CliRunner().invoke(main, [command, option, ""])
    assert done.exit_code == 2
    assert "the name is empty" in done.stderr
