import contextlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from charlm.cli import COMMANDS, main
from charlm.engine.checkpoint import save_checkpoint
from tests.conftest import make_checkpoint
from tests.server import CLOSED, NO_READER, Server

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs fork and /dev/full")

FORMS = {
    "train": ["words.txt --steps 1 --hidden 4 --name new --force", "words.txt --plan"],
    "sample": [
        "-n 5 --seed 1",
        "-n 5 --seed 1 --json",
        "-n 5 --seed 1 --count 2",
        "-n 5 --beam 2",
        "-i -n 5 --seed 1",
        "--prime - -n 5 --seed 1",
        "--prime-file words.txt -n 5 --seed 1",
    ],
    "score": [
        "words.txt",
        "words.txt --json",
        "words.txt --total",
        "words.txt --total --json",
        "words.txt --per-token",
        "words.txt --color",
        "words.txt --color=always",
        "words.txt --vs tiny",
        "words.txt --mix tiny:0.5",
    ],
    "next": ["", "--json"],
    "novelty": ["words.txt --corpus hello", "words.txt --corpus hello --json"],
    "classify": [
        "predict words.txt -m mood",
        "predict words.txt -m mood --json",
        "test labelled.tsv -m mood",
        "train labelled.tsv --epochs 1 --hidden 4 --embed 4 --name new --force",
    ],
    "completion": ["bash", "zsh", "fish"],
    "ls": ["", "--json"],
    "export": ["page.html"],
    "info": ["", "--json", "--card"],
    "vectors": ["export", "nearest T", "nearest T --json", "similar T b", "similar T b --json", "analogy T b o"],
    "plot": ["", "-o losses.svg"],
    "corpus": ["", "hello", "--json"],
    "lesson": ["", "--json", "loss", "loss --json", "loss --source"],
}
"""Command lines that print something, for every command."""

LABELLED = "pos\tTo be\nneg\tor not\n" * 20
"""Samples of two labels."""

OUTPUT = [
    *(f"{command} {form}".strip() for command, forms in FORMS.items() for form in forms),
    *(f"{command} --help" for command in COMMANDS),
    "--help",
    "--version",
]
INPUT = [
    "score",
    "score --total",
    "novelty --corpus hello",
    "train - --steps 1",
    "sample --prime -",
    "sample --prime-file -",
    "sample -i",
    "vectors nearest T --file -",
]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a small classifier of `LABELLED`."""
    with contextlib.chdir(tmp_path_factory.mktemp("classifier")):
        Path("labelled.tsv").write_text(LABELLED, encoding="utf-8")
        command = "classify train labelled.tsv --epochs 1 --hidden 4 --embed 4 --name mood -q"
        assert CliRunner().invoke(main, command.split()).exit_code == 0
        return Path("checkpoints/mood/classifier.safetensors").absolute()


@pytest.fixture(autouse=True)
def _files(model_file: Path, classifier: Path) -> None:
    Path("words.txt").write_text("To be\n", encoding="utf-8")
    Path("labelled.tsv").write_text(LABELLED, encoding="utf-8")
    Path("checkpoints/mood").mkdir()
    shutil.copy(classifier, "checkpoints/mood")
    model_file.with_name("log.jsonl").write_text('{"step": 1, "seconds": 1, "train_nats": 2.5}\n' * 2, encoding="utf-8")


def test_every_command_has_examples() -> None:
    assert FORMS.keys() == COMMANDS.keys()
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        if isinstance(command, click.Group):
            assert command.commands.keys() <= {form.split()[0] for form in FORMS[name]}


def stdin_of(command: str) -> str:
    """Return the file that a command reads as standard input."""
    return "words.txt" if command.startswith("sample") else "/dev/null"


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        ({"stdout": "/dev/full"}, "no space left on device"),
        ({"stdout": CLOSED}, "bad file descriptor"),
        ({"max_file_bytes": 200_000}, "file too large"),
    ],
    ids=["full", "closed", "limited"],
)
def test_output_that_cannot_be_written_is_one_line_and_exit_code_1(
    attack: dict[str, Any], reason: str, server: Server
) -> None:
    for command in OUTPUT:
        done = server.run(command, stdin=stdin_of(command), **attack)
        last_line = done.stderr.splitlines()[-1]
        assert (command, done.returncode, last_line) == (command, 1, f"Error: standard output: {reason}")
        assert "Traceback" not in done.stderr


def test_messages_that_cannot_be_written_are_lost_and_the_results_stay(server: Server) -> None:
    for command in OUTPUT:
        usual = server.run(command, stdin=stdin_of(command))
        assert usual.returncode == 0, (command, usual.stderr)
        for stderr in ("/dev/full", CLOSED, NO_READER):
            done = server.run(command, stdin=stdin_of(command), stderr=stderr)
            assert (command, done.returncode) == (command, 0)
            assert done.stdout == usual.stdout or "--plan" in command  # the measured speed differs


@pytest.mark.parametrize("stderr", ["/dev/full", CLOSED])
@pytest.mark.parametrize(("command", "code"), [("score missing.txt", 1), ("score --bogus", 2), ("vectors", 2)])
def test_an_error_that_cannot_be_written_keeps_its_exit_code(
    command: str, code: int, stderr: str, server: Server
) -> None:
    assert server.run(command, stderr=stderr).returncode == code


@pytest.mark.parametrize("command", INPUT)
def test_closed_input_is_one_line_and_exit_code_1(command: str, server: Server) -> None:
    done = server.run(command, stdin=CLOSED)
    assert done.returncode == 1
    last_line = done.stderr.splitlines()[-1]
    assert last_line.startswith("Error: standard input: cannot be ")
    assert last_line.endswith(" (Bad file descriptor)")
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_ended_ends_the_command_quietly(server: Server) -> None:
    for command in OUTPUT:
        done = server.run(command, stdin=stdin_of(command), stdout=NO_READER)
        assert (command, done.returncode) == (command, 0)
        assert "Error" not in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["sample -n -1", "--help", "vectors export", "corpus python"])
def test_a_reader_that_has_enough_ends_the_command_quietly(command: str) -> None:
    line = f"{sys.executable} -m charlm {command}"
    script = f"set -o pipefail; {line} | head -c 10 > /dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, encoding="utf-8", check=False, timeout=120)
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.parametrize(
    ("command", "name", "option"),
    [("score words.txt --html page.html", "page.html", "--html"), ("plot --out losses.svg", "losses.svg", "--out")],
)
def test_a_file_that_cannot_be_written_stays_as_it_was(command: str, name: str, option: str, server: Server) -> None:
    Path(name).write_text("before", encoding="utf-8")
    files = set(Path.cwd().iterdir())
    done = server.run(command, max_file_bytes=400)
    error = f"Error: {option} {name}: cannot be written (File too large); nothing was changed"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, error)
    assert Path(name).read_text(encoding="utf-8") == "before"
    assert set(Path.cwd().iterdir()) == files


def test_the_error_names_the_page_whose_middle_cannot_be_written(server: Server) -> None:
    Path("words.txt").write_text("To be\n" * 1000, encoding="utf-8")
    Path("page.html").write_text("before", encoding="utf-8")
    done = server.run("score words.txt --html page.html", max_file_bytes=20_000)
    error = "Error: --html page.html: cannot be written (File too large); nothing was changed"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, error)
    assert Path("page.html").read_text(encoding="utf-8") == "before"


@pytest.mark.parametrize("name", ["missing/page.html", ".", "x" * 300])
def test_a_page_at_an_impossible_place_is_one_line(name: str, server: Server) -> None:
    done = server.run(f"score words.txt --html {name}")
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: --html {name}: cannot be written (")
    assert done.stderr.count("\n") == 1


def test_a_page_is_not_replaced_if_the_text_cannot_be_read(server: Server) -> None:
    Path("page.html").write_text("before", encoding="utf-8")
    Path("words.txt").write_bytes(b"To be\n" + b"\xff\n")
    files = set(Path.cwd().iterdir())
    assert server.run("score words.txt --errors strict --html page.html").returncode == 1
    assert Path("page.html").read_text(encoding="utf-8") == "before"
    assert set(Path.cwd().iterdir()) == files


SURROUNDINGS: list[dict[str, str | None]] = [
    {"COLUMNS": "20", "LINES": "5"},
    {"COLUMNS": "1", "LINES": "1"},
    {"COLUMNS": "0"},
    {"COLUMNS": "wide"},
    {"TERM": "dumb", "NO_COLOR": "1"},
    {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0"},
    {"HOME": None, "XDG_CACHE_HOME": None},
    {"RANK": "first"},
    {"RANK": "1"},
    {"WORLD_SIZE": ""},
]
"""Environments in which every command works."""


@pytest.mark.parametrize("environment", SURROUNDINGS, ids=lambda environment: " ".join(environment))
def test_every_command_works_in_unusual_surroundings(environment: dict[str, str | None], server: Server) -> None:
    for command in [f"{name} {FORMS[name][0]}".strip() for name in COMMANDS]:
        done = server.run(command, stdin=stdin_of(command), environment=environment)
        assert (command, done.returncode, done.stderr.count("Error")) == (command, 0, 0)
        assert done.stdout


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE 'two': the environment variable must be a number from 1 to 65536"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE '0': the environment variable must be a number"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE 2: the environment variable RANK is not set"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "WORLD_SIZE 2: the environment variable MASTER_ADDR is not set"),
        (
            {"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
            "RANK '2': the environment variable must be a number from 0 to 1",
        ),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "http"},
            "MASTER_PORT 'http': the environment variable must be a number from 0 to 65535",
        ),
    ],
    ids=str,
)
def test_variables_of_torchrun_that_are_not_complete_are_an_error(
    environment: dict[str, str | None], message: str, server: Server
) -> None:
    done = server.run("train words.txt --steps 1 --hidden 4 -q", environment=environment)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["sample -n 40 --seed 1 --temp 5 -m hostile", "score -m hostile hostile.txt"])
def test_a_terminal_gets_printable_characters_and_a_file_the_text_unchanged(command: str, server: Server) -> None:
    text = "\x1b[36m\x1b]0;title\x07"
    save_checkpoint(Path("checkpoints/hostile/model.safetensors"), make_checkpoint(text)[1])
    Path("hostile.txt").write_text(f"{text}\n", encoding="utf-8")
    written = server.run(command).stdout
    assert "\x1b" in written
    shown = server.run_on_terminal(command)
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert shown.replace("\r\n", "\n") == written.replace("\x1b", r"\x1b").replace("\x07", r"\x07")
