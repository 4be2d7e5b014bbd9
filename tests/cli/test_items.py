import json
import random
from pathlib import Path

import pytest

from charlm.engine.checkpoint import load_checkpoint
from tests.cli.test_train import invoke
from tests.conftest import VERSE, Charlm

TINY = ("--hidden", "8", "--embed", "8", "--threads", "1", "--steps", "4")
SYLLABLES = ["ka", "lo", "mi", "ra", "ten", "sol", "vi", "du", "nor", "pel"]


def names(count: int = 150) -> list[str]:
    """Return distinct names in ascending order."""
    numbers = random.Random(1).sample(range(10**4), count)
    return sorted("".join(SYLLABLES[int(digit)] for digit in f"{number:04d}").capitalize() for number in numbers)


@pytest.fixture
def name_list() -> Path:
    path = Path("names.txt")
    path.write_text("".join(f"{name}\n" for name in names()), encoding="utf-8")
    return path


def items_of(run: str) -> dict[str, object]:
    return load_checkpoint(Path("checkpoints", run, "model.safetensors")).metadata["items"]


def test_a_list_is_detected_and_a_note_says_so(name_list: Path, charlm: Charlm) -> None:
    done = charlm("train", name_list, *TINY)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "checkpoints/names/model.safetensors\n"
    assert (
        "Note: the text is a list of items, one per line: 135 to train on and 15 to validate on, in random order, each "
        "read by itself; set items to none to read them as one text\n"
    ) in done.stderr
    longest = max(map(len, names())) + 1
    assert items_of("names") == {
        "kind": "line",
        "separator": "\n",
        "train_items": 135,
        "validation_items": 15,
        "longest": longest,
    }
    assert "train_items" in charlm("info", "names").stdout


def test_a_list_can_be_read_as_a_text(name_list: Path) -> None:
    done = invoke("train", name_list, "--items", "none", *TINY)
    assert "items" not in done.stderr
    assert "items" not in load_checkpoint(Path("checkpoints/names/model.safetensors")).metadata


@pytest.mark.parametrize(
    ("option", "written", "read"),
    [("blank", "\n\n", "\n\n"), (r"\n\n", "\n\n\n", "\n\n"), ("<|endoftext|>", "\n<|endoftext|>\n", None)],
)
@pytest.mark.parametrize("words", [False, True])
def test_other_separators_divide_items_of_several_lines(
    option: str, written: str, read: str | None, words: bool
) -> None:
    Path("recipes.txt").write_text(written.join(f"{name} cake\nEggs" for name in names(40)), encoding="utf-8")
    more = ("--tokenizer", "word") if words else ()
    done = invoke("train", "recipes.txt", "--items", option, *TINY, *more)
    assert done.exit_code == 0, done.output
    recorded = items_of("recipes")
    assert recorded["separator"] == (read or written)
    assert (recorded["train_items"], recorded["validation_items"]) == (36, 4)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("", "Error: --items: an empty string separates nothing; set line, blank or none\n"),
        ("<s>", "Error: names.txt: no separator '<s>' found: set --items to line, to another separator, or to none\n"),
        ("blank", "Error: names.txt: no blank line found: set --items to line, to another separator, or to none\n"),
    ],
)
def test_a_separator_that_does_not_fit_is_an_error(option: str, message: str, name_list: Path) -> None:
    done = invoke("train", name_list, "--items", option, *TINY)
    assert done.exit_code > 0
    assert done.stderr == message


def test_a_model_of_items_is_fine_tuned_on_items(name_list: Path) -> None:
    Path("more.txt").write_text("Ann\nBob\nCleo\nDora\n", encoding="utf-8")
    assert invoke("train", name_list, *TINY).exit_code == 0
    done = invoke("train", "more.txt", "--from", "names", "--threads", "1", "--steps", "2", "--val-fraction", "0.25")
    assert done.exit_code == 0, done.output
    assert (items_of("more")["train_items"], items_of("more")["validation_items"]) == (3, 1)
    Path("verse.txt").write_text(VERSE, encoding="utf-8")
    done = invoke("train", "verse.txt", "--from", "names", "--items", "none", "--threads", "1", "--steps", "2")
    assert done.exit_code == 0, done.output
    assert "items" not in load_checkpoint(Path("checkpoints/verse/model.safetensors")).metadata


def test_a_list_is_resumed_with_its_separator(name_list: Path, charlm: Charlm) -> None:
    done = charlm("train", name_list, *TINY, "--items", "line", "--name", "whole")
    assert done.returncode == 0, done.stderr
    saved = load_checkpoint(Path("checkpoints/whole/last.safetensors"), with_resume=True)
    assert saved.metadata["training"]["items"] == "line"
    assert invoke("train", "--resume", "whole", "--items", "blank").stderr.startswith("Error: ")


def test_the_plan_shows_the_items(name_list: Path) -> None:
    done = invoke("train", name_list, "--plan", *TINY)
    assert [line.split() for line in done.stdout.splitlines() if line.startswith("items")] == [
        ["items", "135,", "and", "15", "to", "validate", "on", "one", "per", "line"]
    ]
    assert "--items" in done.stdout


def test_json_lines_are_detected(charlm: Charlm) -> None:
    lines = [json.dumps({"name": name, "tags": [name[:2]], "text": f"{name} is, I say, here."}) for name in names()]
    Path("data.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert "list of items" in charlm("train", "data.jsonl", "--validation", "data.jsonl", *TINY).stderr
    assert (items_of("data")["train_items"], items_of("data")["validation_items"]) == (150, 150)
