"""Copied runs compared with those that a plain search finds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.config import TokenizerConfig
from charlm.engine.novelty import DOTTED_I, HASH_BASE, Comparison, NoveltyFilter, TrainingText, hash_runs
from charlm.text.characters import code_points
from charlm.text.tokenizer import make_tokenizer
from tests.conftest import VERSE

few_letters = st.text(alphabet="ab\n\U0001f600", max_size=40)


def hash_run(run: str) -> int:
    """Hash of one run, by the definition of the polynomial hash."""
    value = 0
    for char in run:
        value = (value * HASH_BASE + ord(char) + 1) % 2**64
    return value


@given(few_letters, st.integers(1, 12))
def test_equal_runs_and_no_others_have_equal_hashes(text: str, length: int) -> None:
    runs = [text[start : start + length] for start in range(len(text) - length + 1)]
    hashes = hash_runs(code_points(text), length).tolist()
    assert len(hashes) == len(runs)
    assert hashes == [hash_run(run) for run in runs]
    assert len(set(hashes)) == len(set(runs))


@given(few_letters, few_letters, st.integers(1, 6))
def test_copied_runs_are_those_that_a_plain_search_finds(training: str, text: str, length: int) -> None:
    expected = [text[start : start + length] in training for start in range(len(text) - length + 1)]
    assert TrainingText(training).copied_runs(text, length).tolist() == expected


@given(few_letters, few_letters)
def test_the_longest_copy_is_the_one_that_a_plain_search_finds(training: str, text: str) -> None:
    runs = [text[i:j] for i in range(len(text)) for j in range(i, len(text) + 1) if text[i:j] in training]
    found = TrainingText(training).longest_copy(text)
    assert len(found.text) == max(map(len, runs), default=0)
    assert text.startswith(found.text, found.position)
    assert training.startswith(found.text, found.training_position)


@given(few_letters, few_letters, st.text(alphabet="ab\n", min_size=1, max_size=4), st.integers(1, 5))
def test_the_filter_recognises_every_repetition_that_ends_in_the_new_piece(
    training: str, preceding: str, piece: str, length: int
) -> None:
    whole = preceding + piece
    ends = range(max(length, len(preceding) + 1), len(whole) + 1)
    expected = any(whole[end - length : end] in training for end in ends)
    assert NoveltyFilter(training, length).repeats(preceding, piece) == expected


def test_runs_across_a_chunk_boundary_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.engine.novelty.CHUNK_CHARS", 7)
    assert TrainingText(VERSE).longest_copy(f"xx{VERSE[:200]}yy").text == VERSE[:200]


BLANK_TEXT = st.text(alphabet="aB \n\t\u3000İΣ", max_size=30)


@given(BLANK_TEXT, st.booleans(), st.booleans())
def test_differences_that_do_not_matter_are_removed(text: str, lowercase: bool, single_spaces: bool) -> None:
    points, indices = Comparison(lowercase=lowercase, single_spaces=single_spaces).apply(text)
    expected = text.replace("İ", "i").lower() if lowercase else text
    if single_spaces:
        expected = "\n".join(" ".join(line.split()) for line in expected.split("\n"))
    assert "".join(map(chr, points)) == expected
    if indices is not None:
        kept = "".join(text[index] for index in indices)
        assert kept.split() == text.split()


def test_only_one_lower_case_letter_has_another_length() -> None:
    assert [char for char in map(chr, range(0x110000)) if len(char.lower()) != 1] == [DOTTED_I]
    assert [char for char in map(chr, range(0x3001, 0x110000)) if char.isspace()] == []


@given(BLANK_TEXT, BLANK_TEXT)
def test_a_copy_is_found_in_spite_of_differences_and_shown_as_it_is(training: str, text: str) -> None:
    comparison = Comparison(lowercase=True, single_spaces=True)

    def simple(text: str) -> str:
        return "".join(map(chr, comparison.points(text)))

    found = TrainingText(training, comparison).longest_copy(text)
    runs = [simple(text)[i:j] for i in range(len(text)) for j in range(i, len(text) + 1)]
    longest = max((len(run) for run in runs if run in simple(training)), default=0)
    assert len(simple(f"x{found.text}x")) - 2 >= longest  # blanks at the ends of the shown run count as well
    assert text.startswith(found.text, found.position)


def test_the_form_of_a_model_is_that_of_its_tokenizer() -> None:
    words, split = (TokenizerConfig(tokenizer="word", lowercase=True, split=split) for split in ("words", "whitespace"))
    assert Comparison.of_model(make_tokenizer(TokenizerConfig(), [VERSE])) == Comparison()
    assert Comparison.of_model(make_tokenizer(words, [VERSE])) == Comparison(lowercase=True)
    assert Comparison.of_model(make_tokenizer(split, [VERSE])) == Comparison(lowercase=True, single_spaces=True)


def test_the_filter_ignores_differences_that_do_not_matter() -> None:
    found = NoveltyFilter("To  be,\tor not\n", 11, Comparison(lowercase=True, single_spaces=True))
    assert found.repeats("TO be,", " or no")
    assert not found.repeats("TO be,", " or")
    assert not NoveltyFilter("To  be,\tor not\n", 11).repeats("To be,", " or no")


def test_similar_runs_have_different_hashes() -> None:
    text = "".join(np.random.default_rng(0).choice(list("ab"), 20000))
    runs = {text[start : start + 40] for start in range(len(text) - 39)}
    assert len(set(hash_runs(code_points(text), 40).tolist())) == len(runs)
