import importlib.metadata
import platform
import sys

import click.testing
import pytest

from charlm._version import __version__
from charlm.cli import COMMANDS, main


def invoke(*arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, arguments, prog_name="charlm")


@pytest.mark.parametrize("arguments", [(), ("vectors",)])
def test_a_group_without_arguments_shows_its_help(arguments: tuple[str, ...]) -> None:
    shown = invoke(*arguments).output
    assert shown == invoke(*arguments, "--help").output
    assert "\\n" not in shown
    assert len(shown.splitlines()) > 10


@pytest.mark.parametrize("command", COMMANDS)
def test_help_followed_by_a_command_shows_the_help_of_the_command(command: str) -> None:
    done = invoke("help", command)
    assert done.exit_code == 0
    assert done.output == invoke(command, "--help").output


def test_help_alone_shows_the_help() -> None:
    assert invoke("help").output == invoke("--help").output


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("trian", "did you mean train?"),
        ("scores", "did you mean score"),
        ("xyzzy", "`charlm --help` lists the commands"),
    ],
)
def test_an_unknown_command_is_an_error_with_a_suggestion(name: str, hint: str) -> None:
    done = invoke(name)
    assert done.exit_code == 2
    assert f"No such command {name!r}; {hint}" in done.stderr


def test_the_version_includes_those_of_the_packages_that_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    numpy, torch = sys.modules["numpy"].__version__, sys.modules["torch"].__version__
    python = platform.python_version()
    assert invoke("--version").output == f"charlm {__version__} (Python {python}, numpy {numpy}, torch {torch})\n"
    version = importlib.metadata.version

    def without_torch(package: str) -> str:
        return version("package-that-does-not-exist" if package == "torch" else package)

    monkeypatch.setattr(importlib.metadata, "version", without_torch)
    assert invoke("--version").output.endswith(f"numpy {numpy}, torch not installed)\n")
