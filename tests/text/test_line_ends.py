from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from charlm.text.line_ends import fold_line_ends, join_line_ends
from charlm.text.lines import Lines, split_lines

TEXT = st.text(st.sampled_from("ab é\r\n"), max_size=40)


def in_blocks(text: str, cuts: list[int]) -> list[str]:
    """Return a text in blocks, cut at the given places; blocks may be empty."""
    inner = sorted(min(cut, len(text)) for cut in cuts)
    return [text[begin:end] for begin, end in pairwise([0, *inner, len(text)])]


def lines_of(text: str) -> list[tuple[str, bool]]:
    """Return each line of a text, and whether its line end has a carriage return, one character after the other."""
    lines: list[tuple[str, bool]] = []
    line = ""
    for char in text:
        line += char
        if char == "\n":
            with_return = line[-2:-1] == "\r"
            lines.append((line[:-2] + "\n" if with_return else line, with_return))
            line = ""
    return [*lines, (line, False)] if line else lines


@given(TEXT, st.lists(st.integers(0, 40)))
def test_no_block_ends_within_a_line_end(text: str, cuts: list[int]) -> None:
    blocks = list(join_line_ends(in_blocks(text, cuts)))
    assert "".join(blocks) == text
    assert "".join(map(fold_line_ends, blocks)) == text.replace("\r\n", "\n")


@given(TEXT, st.lists(st.integers(0, 40)))
def test_only_a_newline_ends_a_line_wherever_blocks_are_cut(text: str, cuts: list[int]) -> None:
    blocks = list(split_lines(in_blocks(text, cuts)))
    assert [(line, index in block.with_return) for block in blocks for index, line in enumerate(block)] == lines_of(
        text
    )


@given(TEXT, st.lists(st.integers(0, 40)))
def test_a_long_line_in_parts_has_the_carriage_return_in_its_last_part(text: str, cuts: list[int]) -> None:
    blocks: list[Lines] = list(split_lines(in_blocks("x" * 2**16 + text, cuts)))
    whole = "".join(line for block in blocks for line in block)
    assert whole == fold_line_ends("x" * 2**16 + text)
    assert sum(len(block.with_return) for block in blocks) == text.count("\r\n")
    for block in blocks:
        assert all(block[index].endswith("\n") for index in block.with_return)
