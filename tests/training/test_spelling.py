"""Spelling models that a training makes, and their cost on the validation text."""

import math
from pathlib import Path

import pytest

from charlm.config import TokenizerConfig
from charlm.engine.spelling import NUM_CODE_POINTS, SpellingModel
from charlm.text.corpus import CorpusReader
from charlm.text.tokenizer import CharTokenizer, WhitespaceTokenizer, WordTokenizer
from charlm.text.words import UNKNOWN_WORD
from charlm.training.dataset import Dataset, TextSources, read_dataset
from charlm.training.finetune import extend_vocabulary
from charlm.training.spelling import MAX_MEASURED_CHARS, learn_spelling, spelling_nats_per_token
from tests.conftest import VERSE


def dataset_of(text: str, validation: str, **config: object) -> Dataset:
    """Return the dataset of two texts."""
    Path("train.txt").write_text(text, encoding="utf-8")
    Path("valid.txt").write_text(validation, encoding="utf-8")
    with CorpusReader(["train.txt"]) as corpus, CorpusReader(["valid.txt"]) as held_out:
        sources = TextSources(corpus=corpus, validation=held_out, cache=Path("cache"))
        return read_dataset(sources, TokenizerConfig(**config))  # type: ignore[arg-type]


def test_the_words_are_those_of_the_vocabulary_and_the_rare_ones() -> None:
    tokenizer = WordTokenizer.from_text(["to be, to be  slings arrows\n"], min_count=2)
    assert tokenizer.rare_words == {",": 1, "slings": 1, "arrows": 1, "  ": 1}
    spelling = learn_spelling(tokenizer)
    assert spelling is not None
    expected = SpellingModel.estimate(dict.fromkeys(["to", "be", ",", "slings", "arrows"], 1))
    words = ["to", "slings", "stone", "%"]
    assert spelling.nats(words).tolist() == pytest.approx(expected.nats(words).tolist(), rel=0.01)
    assert learn_spelling(CharTokenizer.from_text(VERSE)) is None


def test_the_unknown_token_in_a_text_counts_as_often_as_it_occurs() -> None:
    text = f"to be {UNKNOWN_WORD} or {UNKNOWN_WORD}\n" * 30
    tokenizer = WhitespaceTokenizer.from_text([text])
    assert tokenizer.rare_words == {UNKNOWN_WORD: 60}
    spelling = learn_spelling(tokenizer)
    assert spelling is not None
    itself, other = spelling.nats([UNKNOWN_WORD, "bo"])
    assert itself < 0.2
    assert 4 < other < 40


def test_an_extended_vocabulary_keeps_the_rare_words_of_the_new_text() -> None:
    known = WordTokenizer.from_text(["to be or not\n"])
    other = WordTokenizer.from_text(["to sleep to sleep perchance not dream\n"], min_count=2)
    extended = extend_vocabulary(known, other)
    assert isinstance(extended, WordTokenizer)
    assert "sleep" in extended.tokens
    assert extended.rare_words == {"perchance": 1, "dream": 1}
    limited = extend_vocabulary(known, other, known.vocab_size)
    assert isinstance(limited, WordTokenizer)
    assert limited.rare_words == {"sleep": 1, "perchance": 1, "dream": 1}


def test_a_large_vocabulary_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.training.spelling.MAX_WORDS", 10)
    spelling = learn_spelling(WordTokenizer.from_text([VERSE]))
    assert spelling is not None
    assert len(spelling.chars) < 20


def test_bits_per_character_of_a_dataset_include_the_spelling() -> None:
    data = dataset_of(VERSE * 3, "To xyzzy, and xyzzy or quux\n", tokenizer="word")
    assert data.spelling is not None
    spelt = float(data.spelling.nats(["xyzzy", "xyzzy", "quux"]).sum())
    assert data.spelling_nats == pytest.approx(spelt / len(data.val_ids), rel=1e-5)
    assert data.loss_units.bits_per_char(2.0) == pytest.approx(
        (2 * len(data.val_ids) + spelt) / math.log(2) / len("To xyzzy, and xyzzy or quux\n"), rel=1e-5
    )


def test_bits_per_character_of_a_list_of_items_include_the_spelling() -> None:
    words = [f"{first}{second}" for first in ("mar", "tor", "bel") for second in ("ia", "in", "la", "ge", "no", "us")]
    Path("names.txt").write_text("".join(f"{word} lee\n" for word in words), encoding="utf-8")
    with CorpusReader(["names.txt"]) as corpus:
        sources = TextSources(corpus=corpus, val_fraction=0.5, items="line", cache=Path("cache"))
        data = read_dataset(sources, TokenizerConfig(tokenizer="word"))
    assert data.spelling is not None
    held_out = [word for word in words if word not in data.tokenizer.tokens]
    assert len(held_out) == len(words) / 2
    spelt = float(data.spelling.nats(held_out).sum())
    assert data.spelling_nats * len(data.val_ids) == pytest.approx(spelt, rel=1e-5)


def test_unknown_characters_of_the_validation_text_cost_a_uniform_share() -> None:
    data = dataset_of(VERSE, "ab日本\n")
    assert data.spelling is None
    share = math.log(NUM_CODE_POINTS - (data.tokenizer.vocab_size - 1))
    assert data.spelling_nats == pytest.approx(2 * share / 5)


def test_the_spelling_of_a_long_text_is_measured_at_its_beginning() -> None:
    tokenizer = WordTokenizer.from_text(["to be\n"])
    spelling = learn_spelling(tokenizer)
    line = "to xyzzy be\n"
    text = line * (MAX_MEASURED_CHARS // len(line) + 10)
    ids = tokenizer.encode(text)
    found = spelling_nats_per_token(tokenizer, spelling, ids, [text, "unused"])
    assert found == pytest.approx(
        spelling_nats_per_token(tokenizer, spelling, tokenizer.encode(line), [line]), rel=1e-4
    )
    assert spelling_nats_per_token(tokenizer, spelling, tokenizer.encode("to be\n")) == 0
