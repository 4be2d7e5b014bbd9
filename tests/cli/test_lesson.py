import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import charlm.lessons
from charlm.cli import main
from charlm.lessons import LESSONS, LessonOptions, Say

LESSON_FOLDER = Path(charlm.lessons.__path__[0])


def lesson(*args: str | Path) -> Result:
    return CliRunner().invoke(main, ["lesson", *map(str, args)], catch_exceptions=False)


def test_list_has_all_lessons_in_order_with_their_times() -> None:
    lines = lesson().stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(LESSONS)
    for line, entry in zip(lines, LESSONS.values(), strict=True):
        assert len(line) <= 80
        assert entry.title in line
        assert entry.time in line


def test_list_as_json() -> None:
    listed = json.loads(lesson("--json").stdout)
    assert list(listed) == list(LESSONS)
    assert listed["digits"]["takes"] == ["data", "cell", "plot"]


def test_list_source_and_help_import_no_torch() -> None:
    code = (
        "import sys\nfrom charlm.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    for arguments in (["lesson"], ["lesson", "lstm", "--source"], ["lesson", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", LESSONS)
def test_source_prints_the_code_of_a_lesson(name: str) -> None:
    assert lesson(name, "--source").stdout == (LESSON_FOLDER / f"{name}.py").read_text(encoding="utf-8")


def test_lesson_ends_with_the_command_of_the_next_lesson() -> None:
    names = list(LESSONS)
    done = lesson("loss")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1].strip() == f"charlm lesson {names[names.index('loss') + 1]}"


def test_json_output_is_only_the_figures() -> None:
    figures = json.loads(lesson("hello", "--json", "--seed", "3").stdout)
    assert figures["predicted"] == "ihello"
    assert figures == json.loads(lesson("hello", "--json", "--seed", "3").stdout)
    assert figures != json.loads(lesson("hello", "--json", "--seed", "4").stdout)


def test_unknown_lesson_is_an_error_that_suggests_similar_names() -> None:
    done = lesson("lsmt")
    assert done.exit_code == 2
    assert "no lesson 'lsmt'; did you mean lstm?" in done.stderr
    assert "the lessons are cell, unroll" in lesson("xyz").stderr


@pytest.mark.parametrize(
    ("arguments", "lessons"),
    [
        (["hello", "--plot", "a.png"], "series, digits, batchnorm, reviews"),
        (["series", "--cell", "gru"], "digits"),
        (["loss", "--data", "."], "digits, batchnorm, reviews"),
        (["skipgram", "--glove", "a.txt"], "reviews"),
    ],
    ids=" ".join,
)
def test_option_that_a_lesson_does_not_have_is_a_usage_error(arguments: list[str], lessons: str) -> None:
    done = lesson(*arguments)
    assert done.exit_code == 2
    assert f"the lesson {arguments[0]} has no option {arguments[1]}; the lessons that have it: {lessons}" in done.stderr


@pytest.mark.parametrize("option", ["--plot", "--data", "--glove", "--cell", "--source"])
def test_lesson_option_without_a_lesson_is_a_usage_error(option: str) -> None:
    value = {"--plot": ["a.png"], "--data": ["."], "--cell": ["gru"], "--glove": ["a.txt"]}.get(option, [])
    done = lesson(option, *value)
    assert done.exit_code == 2
    assert "these options need a lesson" in done.stderr


def test_missing_data_is_an_error_of_one_line(tmp_path: Path) -> None:
    done = lesson("digits", "--data", tmp_path)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: --data {tmp_path}: train-images-idx3-ubyte, t10k-images-idx3-ubyte, ")
    assert done.stderr.count("\n") == 1


def test_picture_is_saved() -> None:
    pytest.importorskip("matplotlib")
    assert lesson("batchnorm", "--quick", "--plot", "picture.png").exit_code == 0
    assert Path("picture.png").read_bytes().startswith(b"\x89PNG")


def test_unusable_picture_path_is_refused_before_the_lesson_runs() -> None:
    pytest.importorskip("matplotlib")
    for name, words in (("wave.txt", "must end in one of"), ("none/wave.png", "there is no folder none")):
        done = lesson("series", "--plot", name)
        assert done.exit_code == 2
        assert words in done.stderr
        assert not done.stdout


def test_plot_without_matplotlib_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = lesson("series", "--plot", "wave.png")
    assert done.exit_code == 1
    assert done.stderr == "Error: --plot needs matplotlib: pip install matplotlib\n"


def test_lesson_uses_one_thread_unless_told_otherwise_and_no_thread_spins() -> None:
    code = (
        "import json, os\nfrom charlm.cli import main\nthreads = []\n"
        "for options in [], ['--threads', '3']:\n"
        "    try:\n        main(['lesson', 'loss', *options])\n"
        "    except SystemExit as end:\n        assert not end.code\n"
        "    import torch\n    threads.append(torch.get_num_threads())\n"
        "print(json.dumps([threads, int(os.environ['GOMP_SPINCOUNT'])]))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP", "GOMP"))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment)
    threads, spins = json.loads(done.stdout.splitlines()[-1])
    assert threads == [1, 3]
    assert spins < 10_000


def test_status_of_a_lesson_is_shown_on_a_terminal_between_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(say: Say, options: LessonOptions) -> dict[str, object]:
        say("before")
        say.status("batch 1 of 2")
        say("after")
        return {}

    shown: list[str] = []
    monkeypatch.setattr("charlm.lessons.series.run", run)
    monkeypatch.setattr("charlm.cli.status.StatusLine.show_if_due", lambda self, text: shown.append(text))
    done = lesson("series")
    assert done.stdout.splitlines()[:2] == ["before", "after"]
    assert shown == ["batch 1 of 2"]
