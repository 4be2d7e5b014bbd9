import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.engine.novelty import TEXT_FILE, Guard, TrainingText, keep_text, kept_text, run_hash, run_hashes
from charlm.errors import NoveltyError
from charlm.text.characters import code_points
from charlm.text.tokenizer import CharTokenizer
from tests.conftest import VERSE

few_letters = st.text(alphabet="ab\n\U0001f600", max_size=40)


@given(few_letters, st.integers(1, 12))
def test_hashes_are_equal_where_runs_are(text: str, length: int) -> None:
    runs = [text[place : place + length] for place in range(len(text) - length + 1)]
    hashes = run_hashes(code_points(text), length).tolist()
    assert len(hashes) == len(runs)
    assert hashes == [run_hash(run) for run in runs]
    assert len(set(hashes)) == len(set(runs))


@given(few_letters, few_letters, st.integers(1, 6))
def test_copies_are_those_that_a_plain_search_finds(training: str, text: str, length: int) -> None:
    wanted = [text[place : place + length] in training for place in range(len(text) - length + 1)]
    assert TrainingText(training).copied(text, length).tolist() == wanted


@given(few_letters, few_letters)
def test_the_longest_copy_is_the_one_that_a_plain_search_finds(training: str, text: str) -> None:
    runs = [text[i:j] for i in range(len(text)) for j in range(i, len(text) + 1) if text[i:j] in training]
    found = TrainingText(training).longest_copy(text)
    assert len(found.text) == max(map(len, runs), default=0)
    assert text.startswith(found.text, found.place)
    assert training.startswith(found.text, found.origin)


@given(few_letters, few_letters, st.text(alphabet="ab\n", min_size=1, max_size=4), st.integers(1, 5))
def test_a_guard_sees_every_repetition_that_ends_in_the_new_piece(
    training: str, before: str, piece: str, length: int
) -> None:
    whole = before + piece
    ends = range(max(length, len(before) + 1), len(whole) + 1)
    wanted = any(whole[end - length : end] in training for end in ends)
    assert Guard(training, length).repeats(before, piece) == wanted


def test_copies_across_the_border_of_two_chunks_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.engine.novelty.CHUNK", 7)
    assert TrainingText(VERSE).longest_copy(f"xx{VERSE[:200]}yy").text == VERSE[:200]


def test_the_text_kept_is_the_text_learnt_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.engine.novelty.CHUNK", 50)
    text = VERSE + "\udc80\U0001f600"
    tokenizer = CharTokenizer.from_text(text)
    keep_text(tmp_path, tokenizer, tokenizer.encode(text))
    assert kept_text(tmp_path / "model.safetensors") == text
    monkeypatch.setattr("charlm.engine.novelty.KEPT_CHARS", 70)
    keep_text(tmp_path, tokenizer, tokenizer.encode(text))
    assert kept_text(tmp_path / "model.safetensors") == text[:70]
    assert [path.name for path in tmp_path.iterdir()] == [TEXT_FILE]


@pytest.mark.parametrize("content", [None, b"", b"no gzip", gzip.compress(b"cut short")[:-9]])
def test_a_text_that_is_missing_or_damaged_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / TEXT_FILE).write_bytes(content)
    if content == b"":
        assert kept_text(tmp_path / "m") == ""  # an empty gzip file, as gzip itself has it
        return
    with pytest.raises(NoveltyError, match=f"{TEXT_FILE}: .*--corpus FILE"):
        kept_text(tmp_path / "m")


def test_hashes_spread_over_similar_runs() -> None:
    text = "".join(np.random.default_rng(0).choice(list("ab"), 20000))
    runs = {text[place : place + 40] for place in range(len(text) - 39)}
    assert len(set(run_hashes(code_points(text), 40).tolist())) == len(runs)
