"""Note of `charlm score` about unknown tokens, and the numbers of their spelling."""

import json
from pathlib import Path

import pytest

from charlm.engine.checkpoint import save_checkpoint
from charlm.engine.spelling import SpellingModel
from charlm.engine.unknown import WordCounts
from tests.cli.test_words import run
from tests.conftest import make_checkpoint
from tests.engine.test_spelling import SPELLING, word_checkpoint, words_of


def save_word_model(name: str = "words", spelling: SpellingModel | None = SPELLING) -> None:
    save_checkpoint(Path(f"checkpoints/{name}/model.safetensors"), word_checkpoint(words_of(), spelling))


TEXT = "blorf blorf znarg\n" * 3 + "the \x1b[2J quib " + "x" * 99 + " one two three four\n"


@pytest.mark.parametrize("options", [[], ["--total"], ["--mix", "other:0.3"], ["--per-token"], ["--threads", "2"]])
def test_the_most_frequent_unknown_words_are_named(options: list[str]) -> None:
    save_word_model()
    save_word_model("other")
    note = run("score", "-m", "words", *options, stdin=TEXT).stderr.splitlines()[-1]
    assert "tokens were unknown to the model; the most frequent: 'blorf' (6), 'znarg' (3), " in note
    assert note.count("(1)") == 3
    assert note.isprintable()
    assert "x" * 31 not in note


def test_a_long_line_is_counted_once(tmp_path: Path) -> None:
    save_word_model()
    long = tmp_path / "long.txt"
    long.write_text("blorf " * 30_000, encoding="utf-8")
    assert "'blorf' (30,000)" in run("score", "--format", "nats", long).stderr


def test_a_word_model_without_spelling_model_is_noted() -> None:
    save_word_model(spelling=None)
    done = run("score", "--format", "nats,spelling", stdin="blorf\n")
    assert "no spelling model, because an earlier version wrote it" in done.stderr
    assert done.stdout.split()[1] == "0.0000"
    assert run("score", stdin="to be\n").stderr == ""
    assert run("score", "-q", stdin="blorf\n").stderr == ""


def test_the_cost_of_spelling_is_a_column_and_a_figure() -> None:
    save_word_model()
    nats, spelling, bits = map(
        float, run("score", "--format", "nats,spelling,bits-per-char", stdin="blorf\n").stdout.split()
    )
    assert spelling == pytest.approx(float(SPELLING.nats(["blorf"])[0]), abs=1e-3)
    total = json.loads(run("score", "--total", "--json", stdin="blorf\n").stdout)
    assert total["bits_per_char"] == pytest.approx(bits, abs=1e-3)
    assert total["spelling_bits_per_char"] == pytest.approx(bits * spelling / nats, abs=1e-3)
    plain = total["bits_per_char"] - total["spelling_bits_per_char"]
    assert total["bits_per_token"] == pytest.approx(plain * total["characters"] / total["tokens"])


def test_unknown_characters_are_named() -> None:
    save_checkpoint(Path("checkpoints/chars/model.safetensors"), make_checkpoint()[1])
    done = run("score", stdin="日本日\n")
    assert done.stderr == "Note: 3 of 4 tokens were unknown to the model; the most frequent: '日' (2), '本' (1)\n"


def test_counts_of_many_words_keep_the_most_frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.engine.unknown.MAX_COUNTED_WORDS", 10)
    counts = WordCounts()
    for number in range(100):
        counts.add([str(number), "often", "often", "sometimes", ""])
        assert len(counts) <= 10
    assert counts.most_common(2) == [("often", 200), ("sometimes", 100)]
    assert "" not in counts
