import gzip
import tracemalloc
from pathlib import Path

import pytest

from charlm.engine import training_text
from charlm.engine.runs import TEXT_FILE, Run
from charlm.engine.training_text import load_training_text, store_training_text
from charlm.errors import NoveltyError
from tests.conftest import VERSE


def test_texts_are_stored_as_they_are_and_start_on_new_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, text = Run(tmp_path), VERSE + "\t  Café \udc80\U0001f600"
    store_training_text(run, [[text[:7], "", text[7:]], [], ["x\n"], ["y"]])
    assert load_training_text(run.model, {}) == f"{text}\nx\ny"
    monkeypatch.setattr(training_text, "MAX_STORED_CHARS", 70)
    assert load_training_text(run.model, {}) == text[:70]
    store_training_text(run, [[text[:50], text[50:]], ["x"]])
    monkeypatch.undo()
    assert load_training_text(run.model, {}) == text[:70]
    assert [path.name for path in tmp_path.iterdir()] == [TEXT_FILE]


@pytest.mark.parametrize("content", [None, b"", b"no gzip", gzip.compress(b"cut short", mtime=0)[:-9]])
def test_errors_name_a_missing_or_damaged_text(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / TEXT_FILE).write_bytes(content)
    if content == b"":
        assert load_training_text(tmp_path / "m", {}) == ""  # gzip reads an empty file as an empty text
        return
    with pytest.raises(NoveltyError, match=f"{TEXT_FILE}: .*set corpus") as raised:
        load_training_text(tmp_path / "m", {})
    assert raised.value.fields == ("corpus",)


def test_a_text_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    run = Run(tmp_path)
    store_training_text(run, [["old"]])
    with pytest.raises(NoveltyError, match="cannot be written"):
        store_training_text(Run(tmp_path / "missing"), [["new"]])

    def failing() -> object:
        yield "new"
        raise OSError(28, "No space left on device")

    with pytest.raises(NoveltyError, match="No space left on device"):
        store_training_text(run, [failing()])  # type: ignore[list-item]
    assert load_training_text(run.model, {}) == "old"
    assert [path.name for path in tmp_path.iterdir()] == [TEXT_FILE]


def test_a_compressed_text_of_any_size_takes_limited_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / TEXT_FILE).write_bytes(gzip.compress(bytes(50_000_000)))
    monkeypatch.setattr(training_text, "MAX_STORED_CHARS", 1000)
    tracemalloc.start()
    assert len(load_training_text(tmp_path / "m", {})) == 1000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def test_a_named_corpus_replaces_a_text_that_is_not_stored(tmp_path: Path) -> None:
    assert load_training_text(tmp_path / "m", {"corpus": {"sources": ["hello"]}}) == "hihello"
    with pytest.raises(NoveltyError, match="not stored"):
        load_training_text(tmp_path / "m", {"corpus": {"sources": ["hello", "own.txt"]}})
