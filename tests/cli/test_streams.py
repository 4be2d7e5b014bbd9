import contextlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from charlm.cli import COMMANDS
from charlm.engine.checkpoint import save_checkpoint
from tests.conftest import make_checkpoint

EXAMPLES = {
    "train": "train hello --steps 1 --hidden 4 -q",
    "sample": "sample -n 5",
    "score": "score words.txt",
    "next": "next",
    "novelty": "novelty words.txt --corpus hello",
    "info": "info",
    "vectors": "vectors export",
    "plot": "plot",
    "corpus": "corpus",
    "lesson": "lesson",
}
"""A command line that prints something, for every command."""

OUTPUT = [
    *EXAMPLES.values(),
    *(f"{command} --help" for command in COMMANDS),
    "--help",
    "--version",
    "score --total words.txt",
]
INPUT = ["score", "score --total", "novelty --corpus hello", "train - --steps 1", "sample --prime -", "sample -i"]


@pytest.fixture(autouse=True)
def _files(model_file: Path) -> None:
    Path("words.txt").write_text("To be\n", encoding="utf-8")
    model_file.with_name("log.jsonl").write_text('{"step": 1, "seconds": 1, "train_nats": 2.5}\n' * 2, encoding="utf-8")


def shell(command: str, redirection: str) -> "subprocess.CompletedProcess[str]":
    line = f"{shlex.quote(sys.executable)} -m charlm {command} {redirection}"
    return subprocess.run(["/bin/sh", "-c", line], capture_output=True, encoding="utf-8", check=False, timeout=120)


def test_every_command_has_an_example() -> None:
    assert EXAMPLES.keys() == COMMANDS.keys()


@pytest.mark.parametrize("command", OUTPUT)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_device_is_one_line_and_exit_code_1(command: str) -> None:
    done = shell(command, "> /dev/full")
    assert (done.returncode, done.stderr) == (1, "Error: standard output: no space left on device\n")


@pytest.mark.parametrize("command", EXAMPLES.values())
@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_closed_output_is_one_line_and_exit_code_1(command: str) -> None:
    done = shell(command, ">&-")
    assert (done.returncode, done.stderr) == (1, "Error: standard output: bad file descriptor\n")


@pytest.mark.parametrize("command", INPUT)
@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_closed_input_is_one_line_and_exit_code_1(command: str) -> None:
    done = shell(command, "<&-")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "Error: standard input: cannot be read (Bad file descriptor)"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["sample -n -1", "--help", "vectors export", "corpus python"])
@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_a_reader_that_has_enough_ends_the_command_quietly(command: str) -> None:
    line = f"{shlex.quote(sys.executable)} -m charlm {command}"
    script = f"set -o pipefail; {line} | head -c 10 > /dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, encoding="utf-8", check=False, timeout=120)
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("command", ["sample -n 40 --seed 1 --temp 5 -m hostile", "score -m hostile hostile.txt"])
def test_a_terminal_gets_printable_characters_and_a_pipe_the_text_unchanged(command: str) -> None:
    text = "\x1b[36m\x1b]0;title\x07"
    save_checkpoint(Path("checkpoints/hostile/model.safetensors"), make_checkpoint(text)[1])
    Path("hostile.txt").write_text(f"{text}\n", encoding="utf-8")
    arguments = [sys.executable, "-m", "charlm", *command.split()]
    piped = subprocess.run(arguments, capture_output=True, encoding="utf-8", check=True).stdout
    assert "\x1b" in piped
    ours, theirs = os.openpty()
    with subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.DEVNULL):
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the end of a pseudo-terminal
            while block := os.read(ours, 1024):
                shown += block
    os.close(ours)
    assert b"\x1b" not in shown
    assert b"\x07" not in shown
    assert shown.decode().replace("\r\n", "\n") == piped.replace("\x1b", r"\x1b").replace("\x07", r"\x07")
