import io
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.errors import CorpusError
from charlm.text import lines as lines_module
from charlm.text.lines import Lines, read_lines, split_lines


def joined(blocks: list[Lines]) -> list[str]:
    """Return the lines of all blocks, with the parts of long lines joined."""
    lines: list[str] = []
    mid_line = False
    for block in blocks:
        for line in block:
            lines[-1:] = [lines[-1] + line] if mid_line else [*lines[-1:], line]
            mid_line = False
        mid_line = block.ends_mid_line
    assert not mid_line
    return lines


@given(st.lists(st.text(st.sampled_from("ab \n"), max_size=9)), st.integers(1, 9))
def test_parts_of_lines_join_to_the_lines_of_the_text(texts: list[str], long_line: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines_module, "LONG_LINE", long_line)
        blocks = list(split_lines(texts))
    assert joined(blocks) == io.StringIO("".join(texts), newline="\n").readlines()
    assert all(blocks)
    for block in blocks:
        complete = block[:-1] if block.ends_mid_line or block is blocks[-1] else block
        assert all(line.endswith("\n") for line in complete)


def test_a_line_of_any_length_is_given_in_parts_cut_at_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "LONG_LINE", 8)
    blocks = list(split_lines(["one two thr", "ee four", "\nfive"]))
    assert blocks == [["one two"], [" three"], [" four\n"], ["five"]]
    assert [block.ends_mid_line for block in blocks] == [True, True, False, False]
    assert list(split_lines(["x" * 9, "x" * 9])) == [["x" * 9], ["x" * 9], [""]]


def test_lines_of_a_pipe_are_given_as_soon_as_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_lines_of_several_texts_are_given_in_order() -> None:
    Path("folder").mkdir()
    Path("folder/a").write_bytes(b"\xef\xbb\xbfA\r\nB\0")
    Path("folder/b").write_bytes(b"C\rD")
    Path("empty").touch()
    assert [list(block) for block in read_lines(["folder/*", "empty", "hello"])] == [
        ["A\n"],
        ["B\0\n"],  # each text starts on a new line
        ["C\rD\n"],
        ["hihello"],
    ]


def test_an_invalid_byte_and_a_missing_text_are_errors() -> None:
    Path("bad").write_bytes(b"one\n\xff")
    with pytest.raises(CorpusError, match=r"bad: line 2: not valid utf-8 \(byte 0xff at offset 4\)"):
        list(read_lines(["bad"]))
    for missing in ("absent", "x" * 5000, "a\0b"):
        with pytest.raises(CorpusError):
            list(read_lines([missing]))
