import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from charlm.cli import COMMANDS, main
from charlm.engine.runs import Run, included_models, list_runs
from charlm.lessons import LESSONS
from charlm.text.named_corpora import NAMED_CORPORA

Complete = Callable[[str], list[str]]


@pytest.fixture
def folder(model_file: Path, tmp_path: Path) -> Path:
    """A folder with the run `tiny`, which has a model, the run `torn`, which has only a log, and some files."""
    (tmp_path / "checkpoints" / "torn").mkdir()
    (tmp_path / "checkpoints" / "torn" / "log.jsonl").touch()
    for name in ("text.txt", "two words.txt"):
        tmp_path.joinpath(name).touch()
    (tmp_path / "texts").mkdir()
    return tmp_path


@pytest.fixture
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the command `charlm`."""
    programs = tmp_path_factory.mktemp("bin")
    program = programs / "charlm"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m charlm "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return programs


def completed(line: str) -> list[str]:
    """Return what click proposes for the last word of a command line: type and value."""
    variables = {"_CHARLM_COMPLETE": "bash_complete", "COMP_WORDS": f"charlm {line}"}
    variables["COMP_CWORD"] = str(len(line.split(" ")))
    output = CliRunner().invoke(main, prog_name="charlm", env=variables, catch_exceptions=False).stdout
    return output.split()


CASES = [
    ("", [f"plain,{name}" for name in COMMANDS]),
    ("sc", ["plain,score"]),
    ("help le", ["plain,lesson"]),
    ("train --cl", []),
    ("score --per-t", ["plain,--per-token"]),
    ("vectors ne", ["plain,nearest"]),
    ("sample --model ti", ["plain,tiny", "file,ti"]),
    ("sample -m shake", ["plain,shakespeare", "file,shake"]),
    ("score -m tiny --vs t", ["plain,tiny", "file,t"]),
    ("train --from t", ["plain,tiny", "file,t"]),
    ("train --resume t", ["plain,tiny", "plain,torn"]),
    ("plot tiny t", ["plain,tiny", "plain,torn"]),
    ("info t", ["plain,tiny", "file,t"]),
    ("train ", [*(f"plain,{name}" for name in NAMED_CORPORA), "file,"]),
    ("train hello te", ["file,te"]),
    ("train hello --validation py", ["plain,python", "file,py"]),
    ("corpus sh", ["plain,shakespeare"]),
    ("lesson ", [f"plain,{name}" for name in LESSONS]),
    ("score te", ["file,te"]),
    ("train hello --glove te", ["file,te"]),
    ("train hello --cache te", ["dir,te"]),
    ("train hello --cell g", ["plain,gru"]),
    ("sample --prime t", []),
    ("no-such-command x", []),
    ("train --no-such-option ", [*(f"plain,{name}" for name in NAMED_CORPORA), "file,"]),
    ("train --steps many he", ["plain,hello", "file,he"]),
    ("completion ", ["plain,bash", "plain,zsh", "plain,fish"]),
]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("line", "expected"), CASES, ids=[line or "nothing" for line, _ in CASES])
def test_a_word_is_completed(line: str, expected: list[str]) -> None:
    found = completed(line)
    assert sorted(found) == sorted(expected) if line.startswith(("train --resume", "plot")) else found == expected


def test_nothing_is_completed_from_names_that_a_shell_would_split() -> None:
    for name in ("a b", "a,b", "a'b", "a\x1bb", "ab"):
        Run(Path("checkpoints") / name).path.mkdir(parents=True)
        Run(Path("checkpoints") / name).log.touch()
    assert completed("plot a") == ["plain,ab"]


def test_runs_are_listed_newest_first_and_unreadable_ones_left_out(folder: Path) -> None:
    os.utime(folder / "checkpoints" / "tiny" / "model.safetensors", (1, 1))
    (folder / "checkpoints" / "empty").mkdir()
    (folder / "checkpoints" / "file").touch()
    assert [run.name for run in list_runs()] == ["torn", "tiny"]
    assert "shakespeare" in included_models()


BASH = """
source <(charlm completion bash)
compopt() { :; }
COMP_WORDS=(charlm "${@:1}")
COMP_CWORD=$#
$(complete -p charlm | sed 's/.*-F \\([^ ]*\\) .*/\\1/') charlm
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sample", "-m", "t"], ["text.txt", "texts", "tiny", "two words.txt"]),
        (["lesson", "ba"], ["batchnorm"]),
        (["score", "tw"], ["two words.txt"]),
        (["score", "--quan"], ["--quantile"]),
        (["score", "nothing-like-it"], [""]),
    ],
    ids=" ".join,
)
def test_bash_completes_names_and_files(words: list[str], expected: list[str], folder: Path, programs: Path) -> None:
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", "--norc", "-c", BASH, "bash", *words]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, check=True)
    assert (sorted(done.stdout.split("\n")[:-1]), done.stderr) == (expected, "")


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes_names_with_descriptions(folder: Path, programs: Path) -> None:
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    code = "charlm completion fish | source; complete -C 'charlm lesson ce'; complete -C 'charlm info ti'"
    done = subprocess.run(["fish", "-N", "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "cell\ta recurrent layer by hand, in PyTorch and in NumPy\ntiny\trun\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_accepts_its_script(shell: str) -> None:
    script = CliRunner().invoke(main, ["completion", shell]).stdout
    assert f"_CHARLM_COMPLETE={shell}_complete" in script
    assert "%(" not in script
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n"], input=script, text=True, capture_output=True, check=True)


@pytest.mark.parametrize("line", ["", "train ", "sample -m ", "lesson ", "plot ", "score --"])
def test_completion_imports_neither_numpy_nor_torch(line: str) -> None:
    code = (
        "import sys\nfrom charlm.cli import main\n"
        "try:\n    main(prog_name='charlm')\nexcept SystemExit:\n    pass\n"
        "print(sorted({'numpy', 'torch', 'rich', 'safetensors'} & set(sys.modules)))"
    )
    variables = {"_CHARLM_COMPLETE": "bash_complete", "COMP_WORDS": f"charlm {line}"}
    variables["COMP_CWORD"] = str(len(line.split(" ")))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **variables})
    assert len(done.stdout.splitlines()) > 1
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


WITHOUT = {"words", "first", "second", "third"}
"""Arguments that are words of a vocabulary, which no shell completes."""


@pytest.mark.usefixtures("folder")
def test_every_argument_and_every_option_with_a_file_is_completed() -> None:
    context = click.Context(main)
    for name in COMMANDS:
        command = main.get_command(context, name)
        for leaf in command.commands.values() if isinstance(command, click.Group) else [command]:
            assert leaf is not None
            for param in leaf.params:
                is_file = isinstance(param, click.Option) and {"FILE", "FOLDER"} & {*(param.metavar or "").split("|")}
                if is_file or (isinstance(param, click.Argument) and param.name not in WITHOUT):
                    assert param.shell_complete(context, ""), f"{name}: {param.name}"
