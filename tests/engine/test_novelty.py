"""Copied runs compared with those that a plain search finds."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.engine.novelty import (
    TEXT_FILE,
    NoveltyFilter,
    TrainingText,
    hash_run,
    hash_runs,
    load_training_text,
    store_training_text,
)
from charlm.errors import NoveltyError
from charlm.text.characters import code_points
from charlm.text.tokenizer import CharTokenizer
from tests.conftest import VERSE

few_letters = st.text(alphabet="ab\n\U0001f600", max_size=40)


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


def test_the_stored_text_is_the_training_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.engine.novelty.CHUNK_CHARS", 50)
    text = VERSE + "\udc80\U0001f600"
    tokenizer = CharTokenizer.from_text(text)
    store_training_text(tmp_path, tokenizer, tokenizer.encode(text))
    assert load_training_text(tmp_path / "model.safetensors") == text
    monkeypatch.setattr("charlm.engine.novelty.MAX_STORED_CHARS", 70)
    store_training_text(tmp_path, tokenizer, tokenizer.encode(text))
    assert load_training_text(tmp_path / "model.safetensors") == text[:70]
    assert [path.name for path in tmp_path.iterdir()] == [TEXT_FILE]


@pytest.mark.parametrize("content", [None, b"", b"no gzip", gzip.compress(b"cut short")[:-9]])
def test_errors_name_a_missing_or_damaged_text(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / TEXT_FILE).write_bytes(content)
    if content == b"":
        assert load_training_text(tmp_path / "m") == ""  # gzip reads an empty file as an empty text
        return
    with pytest.raises(NoveltyError, match=f"{TEXT_FILE}: .*set corpus") as raised:
        load_training_text(tmp_path / "m")
    assert raised.value.fields == ("corpus",)


def test_similar_runs_have_different_hashes() -> None:
    text = "".join(np.random.default_rng(0).choice(list("ab"), 20000))
    runs = {text[start : start + 40] for start in range(len(text) - 39)}
    assert len(set(hash_runs(code_points(text), 40).tolist())) == len(runs)
