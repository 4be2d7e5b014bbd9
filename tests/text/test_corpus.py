import gzip
import hashlib
import io
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charlm.errors import ConfigError, CorpusError
from charlm.text import corpus as corpus_module
from charlm.text.corpus import CorpusReader, read_corpus, split_ids
from tests.text.test_decoder import expected_text

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.sampled_from("\r\n"), min_size=1)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read small blocks and pieces, and keep only very short texts in memory."""
    for name, size in (("READ_BYTES", 7), ("MAX_PIECE_CHARS", 11), ("MAX_CHARS_IN_MEMORY", 20)):
        monkeypatch.setattr(corpus_module, name, size)


def as_stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(data))))


@given(TEXT, st.sampled_from(["utf-8", "utf-16", "utf-8-sig", "utf-32"]))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("small_pieces")
def test_pieces_join_to_the_text_in_every_pass(text: str, encoding: str) -> None:
    data = text.encode(encoding)
    Path("plain.txt").write_bytes(data)
    with gzip.open("packed.gz", "wb") as file:
        file.write(data)
    original = expected_text(data, encoding)
    whole = original.replace("\r\n", "\n")
    if not whole:
        return
    with pytest.MonkeyPatch.context() as patch:
        as_stdin(patch, data)
        for spec in ("plain.txt", "packed.gz", "-"):
            with CorpusReader([spec], encoding=encoding) as texts:
                for _ in range(3):
                    assert "".join(texts.pieces()) == whole
                assert texts.num_chars == len(original)
                assert texts.num_returns == original.count("\r\n")
                assert texts.sha256 == hashlib.sha256(whole.encode()).hexdigest()
                assert texts.in_memory == (len(original) <= 20)
                parts = texts.split(0.3)
                assert "".join(piece for part in parts for piece in part.pieces()) == whole
                assert "".join(block for part in parts for block in part.blocks()) == whole
                lengths = [len("".join(part.pieces())) for part in parts]
                returns = [part.num_chars - length for part, length in zip(parts, lengths, strict=True)]
                assert sum(returns) == texts.num_returns
                assert min(returns) >= 0


@pytest.mark.usefixtures("small_pieces")
def test_the_hash_depends_on_the_text_alone() -> None:
    Path("a.txt").write_text("the first part, then", encoding="utf-8")
    Path("b.txt").write_text(" the second part", encoding="utf-8")
    Path("whole.txt").write_text("the first part, then\n the second part", encoding="utf-16")
    one = read_corpus(["a.txt", "b.txt"])
    other = read_corpus(["whole.txt"], encoding="utf-16")
    assert one.text == other.text
    assert one.sha256 == other.sha256
    assert one.sources == ("a.txt", "b.txt")
    assert read_corpus(["a.txt"]).sha256 != one.sha256


@pytest.mark.usefixtures("small_pieces")
def test_pieces_end_after_a_newline_or_else_after_a_space() -> None:
    Path("lines.txt").write_text("one\ntwo\nthree\nfour\nfive six seven eight nine ten eleven", encoding="utf-8")
    with CorpusReader(["lines.txt"]) as texts:
        pieces = list(texts.pieces())
    assert len(pieces) > 3
    assert all(piece.endswith(("\n", " ")) for piece in pieces[:-1])


@given(TEXT, st.integers(1, 40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("small_pieces")
def test_pieces_do_not_depend_on_the_block_size(text: str, size: int) -> None:
    Path("text.txt").write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch, CorpusReader(["text.txt"]) as texts:
        pieces = list(texts.pieces())
        patch.setattr(corpus_module, "READ_BYTES", size)
        assert list(texts.pieces()) == pieces
        assert "".join(texts.blocks()) == "".join(pieces)
        assert all(len(piece) <= 11 for piece in pieces)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("letters", ["\N{SMILING FACE WITH HEART-SHAPED EYES}", "\N{MALAYALAM LETTER UU}", "x"])
def test_line_ends_are_folded_at_any_position_in_a_block(letters: str) -> None:
    text = "".join(letters * count + "\r\n" + letters + "\r" for count in range(8)) + "\r"
    Path("text.txt").write_bytes(text.encode())
    assert read_corpus(["text.txt"]).text == text.replace("\r\n", "\n")


@pytest.mark.usefixtures("small_pieces")
def test_a_long_text_that_changes_between_two_passes_is_an_error() -> None:
    path = Path("grows.txt")
    path.write_text("x y " * 30, encoding="utf-8")
    with CorpusReader(["grows.txt"]) as texts:
        list(texts.pieces())
        path.write_text("x y " * 31, encoding="utf-8")
        with pytest.raises(CorpusError, match=r"grows\.txt: changed while it was read"):
            list(texts.pieces())


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("before", ["", "x" * 6, "größer\n" * 9])
def test_an_invalid_byte_is_reported_in_whichever_block_it_is(before: str) -> None:
    data = before.encode() + b"\xe6\x97" + b" and more"
    Path("bad.txt").write_bytes(data)
    offset, line = len(before.encode()), before.count("\n") + 1
    with pytest.raises(CorpusError, match=rf"^bad\.txt: line {line}: not valid utf-8 \(byte 0xe6 at offset {offset}\)"):
        read_corpus(["bad.txt"])
    assert read_corpus(["bad.txt"], errors="ignore").text == before + " and more"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32", "latin-1"])
def test_a_text_with_a_nul_character_is_refused_as_binary(encoding: str) -> None:
    Path("nul").write_bytes("ab\0cd".encode(encoding))
    with pytest.raises(CorpusError, match=r"nul: looks binary \(NUL character at offset 2\)"):
        read_corpus(["nul"], encoding=encoding)


@pytest.mark.usefixtures("small_pieces")
def test_only_the_first_byte_order_mark_of_standard_input_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    as_stdin(monkeypatch, ("\ufeff\ufeff" + "x" * 30).encode())
    with CorpusReader(["-"]) as texts:
        for _ in range(2):
            assert "".join(texts.pieces()) == "\ufeff" + "x" * 30


@pytest.mark.usefixtures("small_pieces")
def test_a_temporary_file_that_cannot_be_made_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    as_stdin(monkeypatch, b"x" * 30)
    Path("file").touch()
    message = r"^cannot copy standard input to a temporary file \(.*\): set cache to a folder other than file$"
    with CorpusReader(["-"], folder=Path("file")) as texts, pytest.raises(CorpusError, match=message) as caught:
        texts.read_through()
    assert caught.value.fields == ("cache",)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5])
def test_validation_ids_are_the_end_of_the_text(fraction: float) -> None:
    ids = np.arange(20, dtype=np.uint8)
    train, validation = split_ids(ids, fraction)
    np.testing.assert_array_equal(np.concatenate([train, validation]), ids)
    assert len(validation) == 20 * fraction


def test_a_split_with_too_few_tokens_in_a_part_is_refused() -> None:
    for length, fraction in ((3, 0.9), (3, 0.01), (1, 0.0)):
        with pytest.raises(ConfigError, match="val_fraction") as caught:
            split_ids(np.zeros(length, dtype=np.uint8), fraction)
        assert caught.value.fields == ("val_fraction",)
