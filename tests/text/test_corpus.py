import gzip
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charlm.errors import ConfigError, CorpusError
from charlm.text import characters, sources
from charlm.text import corpus as corpus_module
from charlm.text.corpus import CorpusReader, read_corpus, split_ids
from charlm.text.lines import read_lines
from charlm.text.tokenizer import CharTokenizer

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks, pieces and memory so small that every text has many of the first and none of the last."""
    for module, name, size in ((sources, "READ_BYTES", 7), (corpus_module, "PIECE", 11), (corpus_module, "KEPT", 20)):
        monkeypatch.setattr(module, name, size)


def as_stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(data))))


def expected(data: bytes, encoding: str = "utf-8") -> str:
    """What a text is, in one line."""
    return data.decode(encoding).removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


@given(TEXT, st.sampled_from(["utf-8", "utf-16", "utf-8-sig", "utf-32"]))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("small_pieces")
def test_pieces_join_to_the_text_in_every_pass_wherever_it_comes_from(text: str, encoding: str) -> None:
    data = text.encode(encoding)
    Path("plain.txt").write_bytes(data)
    with gzip.open("packed.gz", "wb") as file:
        file.write(data)
    whole = expected(data, encoding)
    if not whole:
        return
    with pytest.MonkeyPatch.context() as patch:
        as_stdin(patch, data)
        for spec in ("plain.txt", "packed.gz", "-"):
            with CorpusReader([spec], encoding=encoding) as texts:
                for _ in range(3):
                    assert "".join(texts.pieces()) == whole
                assert texts.chars == len(whole)
                assert texts.in_memory == (len(whole) <= 20)


@pytest.mark.usefixtures("small_pieces")
def test_a_text_has_the_same_hash_however_it_is_read_and_another_if_it_is_another() -> None:
    Path("a.txt").write_text("the first part, then", encoding="utf-8")
    Path("b.txt").write_text(" the second part", encoding="utf-8")
    Path("whole.txt").write_text("the first part, then the second part", encoding="utf-16")
    one = read_corpus(["a.txt", "b.txt"])
    other = read_corpus(["whole.txt"], encoding="utf-16")
    assert one.text == other.text
    assert one.sha256 == other.sha256
    assert one.sources == ("a.txt", "b.txt")
    assert read_corpus(["a.txt"]).sha256 != one.sha256


@pytest.mark.usefixtures("small_pieces")
def test_pieces_end_where_lines_end_and_failing_that_where_words_do() -> None:
    Path("lines.txt").write_text("one\ntwo\nthree\nfour\nfive six seven eight nine ten eleven", encoding="utf-8")
    with CorpusReader(["lines.txt"]) as texts:
        pieces = list(texts.pieces())
    assert len(pieces) > 3
    assert all(piece.endswith(("\n", " ")) for piece in pieces[:-1])


@given(TEXT, st.integers(1, 40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("small_pieces")
def test_pieces_depend_on_the_text_alone_however_it_comes(text: str, size: int) -> None:
    Path("text.txt").write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch, CorpusReader(["text.txt"]) as texts:
        pieces = list(texts.pieces())
        patch.setattr(sources, "READ_BYTES", size)
        assert list(texts.pieces()) == pieces
        assert "".join(texts.blocks()) == "".join(pieces)
        assert all(len(piece) <= 11 for piece in pieces)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("letters", ["\N{SMILING FACE WITH HEART-SHAPED EYES}", "\N{MALAYALAM LETTER UU}", "x"])
def test_line_ends_become_newlines_wherever_they_are_broken_off(letters: str) -> None:
    text = "".join(letters * count + "\r\n" + letters + "\r" for count in range(8)) + "\r"
    Path("text.txt").write_bytes(text.encode())
    assert read_corpus(["text.txt"]).text == expected(text.encode())


@pytest.mark.usefixtures("small_pieces")
def test_a_long_text_that_changes_between_two_passes_is_noticed() -> None:
    path = Path("grows.txt")
    path.write_text("x y " * 30, encoding="utf-8")
    with CorpusReader(["grows.txt"]) as texts:
        list(texts.pieces())
        path.write_text("x y " * 31, encoding="utf-8")
        with pytest.raises(CorpusError, match=r"grows\.txt: changed while it was read"):
            list(texts.pieces())


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("before", ["", "x" * 6, "größer\n" * 9])
def test_the_place_of_a_bad_byte_is_told_whatever_blocks_it_falls_into(before: str) -> None:
    data = before.encode() + b"\xe6\x97" + b" and more"
    Path("bad.txt").write_bytes(data)
    place, line = len(before.encode()), before.count("\n") + 1
    with pytest.raises(CorpusError, match=rf"byte 0xe6 at position {place} \(line {line}\)"):
        read_corpus(["bad.txt"])
    assert read_corpus(["bad.txt"], errors="ignore").text == before + " and more"


def test_a_folder_gives_its_texts_in_order_and_leaves_out_what_is_none() -> None:
    for name, data in (("b.txt", b"B"), ("a.txt", b"A"), ("c/d.txt", b"D"), ("empty", b""), ("x.png", b"\x89PNG\0")):
        path = Path("folder", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    Path("folder/.hidden").write_bytes(b"H")
    Path("folder/late").write_bytes(b"x" * 3 * sources.READ_BYTES + b"\0")
    found = read_corpus(["folder"])
    assert found.text == "ABD"
    assert found.name == "folder"
    assert read_corpus(["folder/*.txt"]).text == "AB"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-7", "utf-16", "utf-32", "latin-1"])
def test_a_nul_character_is_found_whatever_its_bytes(encoding: str) -> None:
    Path("nul").write_bytes("ab\0cd".encode(encoding))  # in UTF-7 none of them is zero
    with pytest.raises(CorpusError, match=r"looks binary \(a NUL character at position 2\)"):
        read_corpus(["nul"], encoding=encoding)


def test_a_name_that_no_file_can_have_is_no_corpus() -> None:
    for spec in ("a\0b", "x" * 5000, "/dev/null/x"):
        with pytest.raises(CorpusError):
            CorpusReader([spec])


def test_lines_come_as_they_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(io.RawIOBase):
        parts: Iterator[bytes] = iter([b"one\ntw", b"o\nthree"])

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            part = next(self.parts, b"")
            buffer[: len(part)] = part
            return len(part)

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(Slow())))
    assert list(read_lines(["-"])) == [["one\n"], ["two\n"], ["three"]]


@given(st.lists(st.text(st.characters()), max_size=5))
def test_a_vocabulary_of_pieces_is_that_of_the_whole(pieces: list[str]) -> None:
    whole = "".join(pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(characters, "BLOCK_CHARS", 3)
        tokenizer = CharTokenizer.from_pieces(pieces)
        ids = tokenizer.encode(whole)
    assert list(tokenizer.tokens[1:]) == sorted(set(whole))
    np.testing.assert_array_equal(ids, [1 + sorted(set(whole)).index(char) for char in whole])
    assert tokenizer.decode(ids) == whole
    assert set(tokenizer.encode("a\x7f🙂").tolist()) - {0} <= set(ids.tolist())


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5])
def test_the_end_of_a_text_is_for_validation(fraction: float) -> None:
    ids = np.arange(20, dtype=np.uint8)
    train, validation = split_ids(ids, fraction)
    np.testing.assert_array_equal(np.concatenate([train, validation]), ids)
    assert len(validation) == 20 * fraction


def test_a_split_that_leaves_nothing_is_refused() -> None:
    for length, fraction in ((3, 0.9), (3, 0.01), (1, 0.0)):
        with pytest.raises(ConfigError, match="--val-fraction"):
            split_ids(np.zeros(length, dtype=np.uint8), fraction)
