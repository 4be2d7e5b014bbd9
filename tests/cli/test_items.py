import json
import random
import subprocess
import sys
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
        "read independently; set --items to none if it is not a list\n"
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


TWELVE = ["Ana", "Roy", "Bea", "Cleo", "Dora", "Emil", "Fay", "Gus", "Hal", "Ida", "Jon", "Kim"]


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of twelve names, of which it is validated on two."""
    folder = tmp_path_factory.mktemp("twelve")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("twelve.txt").write_text("".join(f"{name}\n" for name in TWELVE), encoding="utf-8")
        settings = ("--hidden", "24", "--embed", "12", "--steps", "120", "--threads", "1", "--val-fraction", "0.2")
        done = invoke("train", "twelve.txt", "--items", "line", *settings)
        assert done.exit_code == 0, done.output
    return folder / "checkpoints" / "twelve"


def test_new_items_are_in_no_part_of_the_list(twelve: Path) -> None:
    for name in TWELVE:  # those that the model was validated on too
        flags = ("-m", twelve, "--prime", name[:-1], "--match", f"^{name}$", "--tries", "150", "--items", "1")
        assert invoke("sample", *flags, "--seed", "1").stdout == f"{name}\n"
        done = invoke("sample", *flags, "--seed", "1", "--new")
        assert (done.exit_code, done.stdout) == (1, "")
        assert "of the training list (--new)" in done.stderr
    flags = ("-m", twelve, "--items", "300", "--seed", "1", "--new", "--unique")
    found = invoke("sample", *flags).stdout.splitlines()
    assert len(set(found)) == len(found) == 300
    assert not set(TWELVE) & set(found)


def test_a_model_of_a_list_writes_items_unless_a_text_is_asked_for(twelve: Path, charlm: Charlm) -> None:
    done = charlm("sample", "-m", twelve, "--seed", "1")
    assert len(done.stdout.splitlines()) == 10
    assert done.stderr == "Note: the model was trained on a list: generating 10 items; set --items or -n\n"
    assert charlm("sample", "-m", twelve, "--seed", "1", "-q").stderr == ""
    assert len(invoke("sample", "-m", twelve, "-n", "40", "--seed", "1").stdout.rstrip("\n")) <= 40
    assert len(invoke("sample", "-m", twelve, "--lines", "4").stdout.splitlines()) == 4


def test_options_of_items(twelve: Path) -> None:
    flags = ("--items", "5", "--seed", "2", "--temp", "1.5", "--min-chars", "3", "--max-chars", "4", "--unique")
    lines = invoke("sample", "-m", twelve, "--prime", "A", *flags).stdout.splitlines()
    assert [line[0] for line in lines] == ["A"] * 5
    assert all(3 <= len(line) <= 4 for line in lines)
    bare = invoke("sample", "-m", twelve, "--prime", "A", "--no-prompt", *flags).stdout.splitlines()
    assert bare == [line[1:] for line in lines]
    facts = [
        json.loads(line)
        for line in invoke("sample", "-m", twelve, "--prime", "A", "--json", *flags).stdout.splitlines()
    ]
    assert [fact["prompt"] + fact["text"] for fact in facts] == lines
    assert {fact["ended_by"] for fact in facts} == {"stop"}
    banned = invoke("sample", "-m", twelve, "--items", "30", "--ban", "o", "--ban", r"a\n").stdout
    assert "o" not in banned
    assert "a\n" not in banned
    failed = invoke("sample", "-m", twelve, "--items", "2", "--match", "[0-9]", "--tries", "20")
    assert failed.exit_code == 1
    assert failed.stderr.startswith("Error: 0 of 2 items generated, and the last 20 candidates rejected; ")
    assert invoke("sample", "-m", twelve, "--items", "2", "--lines", "3").exit_code == 2


def test_items_of_several_lines_are_separated_as_in_the_corpus() -> None:
    Path("recipes.txt").write_text("\n\n".join(f"{name} cake\nEggs" for name in names(40)), encoding="utf-8")
    invoke("train", "recipes.txt", "--items", "blank", "--hidden", "32", "--steps", "60", "--threads", "1")
    text = invoke("sample", "--items", "3", "--length", "200", "--seed", "1").stdout
    assert text.endswith("\n\n")
    assert len(text.removesuffix("\n\n").split("\n\n")) == 3


def test_items_of_a_model_of_a_text_are_lines(charlm: Charlm) -> None:
    done = charlm("sample", "-m", "shakespeare", "--items", "3", "--seed", "1")
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr == "Note: the model was not trained on a list: an item is a line\n"


def test_the_prompt_can_be_left_out_and_the_stop_text_kept() -> None:
    common = ("sample", "-m", "shakespeare", "--prime", "ROMEO:", "--stop", "the", "--seed", "1")
    whole, bare, kept = (invoke(*common, *more).stdout for more in ((), ("--no-prompt",), ("--keep-stop",)))
    assert whole == f"ROMEO:{bare}"
    assert kept.rstrip("\n") == whole.rstrip("\n") + "the" or kept == whole.removesuffix("\n") + "the\n"


def test_a_reader_that_stops_early_is_no_failure(twelve: Path) -> None:
    command = f"{sys.executable} -m charlm sample -m {twelve} --items 100000 | head -2"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 2, "")


def test_a_text_without_a_newline_is_refused_or_ends(charlm: Charlm) -> None:
    Path("abc.txt").write_text("abcabcabcabc" * 30, encoding="utf-8")
    assert invoke("train", "abc.txt", *TINY).exit_code == 0
    done = charlm("sample", "--lines", "1", timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == r"Error: --lines: the model cannot write '\n', so that the text has no end; set --length" + "\n"
    )
    assert len(charlm("sample", "--lines", "1", "-n", "20").stdout) == 21


def test_a_text_that_never_writes_its_newline_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.sample_config.MAX_LINE_TOKENS", 50)
    Path("abc.txt").write_text("abcabcabcabc" * 30 + "\n", encoding="utf-8")
    assert invoke("train", "abc.txt", *TINY).exit_code == 0
    done = invoke("sample", "--lines", "2", "--ban", r"\n")
    assert len(done.stdout) == 101
    assert done.stderr == "Note: ended after 100 tokens, before the last newline\n"


def test_a_score_of_items_as_one_stream_has_a_note(twelve: Path) -> None:
    note = "was trained on items that are read independently"
    assert note in invoke("score", "-m", twelve, "--total", stdin="Ana\nRoy\n").stderr
    assert invoke("score", "-m", twelve, "--total", "--by-line", stdin="Ana\nRoy\n").stderr == ""
    assert invoke("score", "-m", twelve, stdin="Ana\nRoy\n").stderr == ""
    assert invoke("score", "-m", "shakespeare", "--total", stdin="Ana\nRoy\n").stderr == ""
