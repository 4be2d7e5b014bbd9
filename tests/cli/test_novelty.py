import gzip
import json
from pathlib import Path

import pytest

from tests.conftest import VERSE, Charlm


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "verse.txt"
    path.write_text(VERSE)
    return path


def test_the_longest_copy_and_the_shares_are_printed(charlm: Charlm, corpus: Path) -> None:
    text = "@@@@@@@@" + VERSE[100:160]
    found = json.loads(charlm("novelty", "--corpus", corpus, "--json", "--ngram", 8, "--ngram", 100, stdin=text).stdout)
    assert found["run"] == VERSE[100:160]
    assert (found["longest_copied_run"], found["place"], found["place_in_training_text"]) == (60, 8, 100)
    assert found["copied_share"] == {"8": pytest.approx(53 / 61), "100": None}
    rows = charlm("novelty", "--corpus", corpus, stdin=text).stdout.splitlines()
    assert rows[1] == "longest_copied_run\t60\t" + VERSE[100:160].replace("\n", r"\n")
    assert rows[2] == f"copied_8-grams\t{53 / 61:.4f}"


def copied(charlm: Charlm, text: str, *arguments: str) -> float:
    """Share of 8-grams that `charlm novelty` finds in the training text."""
    done = charlm("novelty", *arguments, "--json", stdin=text)
    assert done.returncode == 0, done.stderr
    share: float = json.loads(done.stdout)["copied_share"]["8"]
    return share


RAW = "Zwölf  boxing\twizards JUMP; 3.5% <unk> quickly ... (or not)!\n" + VERSE


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["--tokenizer", "word", "--min-count", "2"],
        ["--tokenizer", "word", "--lowercase", "--vocab-size", "20"],
        ["--tokenizer", "word", "--split", "whitespace", "--lowercase"],
    ],
    ids=" ".join,
)
def test_all_of_a_models_own_text_counts_as_copied(charlm: Charlm, settings: list[str]) -> None:
    """The whole text, held-out part included, in its own spelling and in that of the model."""
    Path("raw.txt").write_text(RAW, encoding="utf-8")
    assert charlm("train", "raw.txt", "--steps", 1, "--hidden", 4, "--val-fraction", 0.5, *settings).returncode == 0
    assert copied(charlm, RAW) == 1
    assert copied(charlm, RAW.swapcase()) == (1 if "--lowercase" in settings else pytest.approx(0.1, abs=0.1))
    assert (copied(charlm, RAW.replace("\t", " ")) == 1) == ("whitespace" in settings)
    assert copied(charlm, "colourless green ideas sleep furiously") == 0


def test_after_fine_tuning_the_first_text_counts_too(charlm: Charlm) -> None:
    """Resuming keeps it, and a validation text of its own is part of the training text."""
    texts = {"a": "abcdefgh stuff\n" * 9, "b": "stuffed hedgehogs\n" * 9, "held": "a cat said\n" * 9}
    for name, text in texts.items():
        Path(f"{name}.txt").write_text(text, encoding="utf-8")
    charlm("train", "a.txt", "--steps", 1, "--hidden", 4, "--name", "first")
    charlm("train", "b.txt", "--from", "first", "--steps", 1, "--validation", "held.txt", "--name", "second")
    assert [copied(charlm, text, "-m", "second") for text in texts.values()] == [1, 1, 1]
    assert [copied(charlm, text, "-m", "first") for text in texts.values()][0::2] == [1, 0]


@pytest.mark.parametrize(("arguments", "stdin", "message"), [
    (["-m", "nobody"], "text", "nobody: no model file or run found"),
    (["--corpus", "nothing.txt"], "text", "nothing.txt"),
])  # fmt: skip
def test_errors_name_the_missing_model_or_text(charlm: Charlm, arguments: list[str], stdin: str, message: str) -> None:
    done = charlm("novelty", *arguments, stdin=stdin)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr


def test_a_named_corpus_replaces_a_missing_training_text(charlm: Charlm) -> None:
    charlm("train", "hello", "--steps", 1, "--hidden", 4, "--name", "r")
    Path("checkpoints/r/text.gz").unlink()
    done = charlm("novelty", "--json", stdin="hello")
    assert json.loads(done.stdout)["longest_copied_run"] == 5
    assert "comparing with all of hello" in done.stderr


def test_a_text_that_is_too_short_has_figures_too(charlm: Charlm) -> None:
    done = charlm("novelty", "--corpus", "hello", "--json", stdin="")
    assert json.loads(done.stdout) == {
        "characters": 0,
        "longest_copied_run": 0,
        "run": "",
        "place": 0,
        "place_in_training_text": 0,
        "copied_share": {"8": None, "16": None, "32": None},
    }
    rows = charlm("novelty", "--corpus", "hello", "--ngram", "3", stdin="").stdout
    assert rows == "characters\t0\nlongest_copied_run\t0\t\ncopied_3-grams\tnan\n"


def test_texts_in_memory_have_a_limit_that_an_option_raises(charlm: Charlm, corpus: Path) -> None:
    Path("packed.gz").write_bytes(gzip.compress(VERSE.encode() * 9))
    limit = ["--max-input", len(VERSE) + 1]
    commands: list[list[object]] = [
        ["novelty", "packed.gz", "--corpus", corpus],
        ["novelty", corpus, "--corpus", "packed.gz"],
        ["sample", "--prime-file", "packed.gz"],
        ["sample", "--novel", 9, "--corpus", "packed.gz"],
    ]
    for arguments in commands:
        done = charlm(*arguments, *limit)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"packed.gz: longer than {len(VERSE) + 1:,} characters" in done.stderr
        assert "set --max-input to allow more" in done.stderr
    assert charlm("novelty", "packed.gz", "--corpus", corpus).returncode == 0
    for text in ("x" * 50, "ab\n" * 20):
        done = charlm("sample", "--prime", "-", "--max-input", 49, stdin=text)
        assert (done.returncode, done.stdout) == (1, "")
        assert "standard input: longer than 49 characters" in done.stderr
