import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.text.printable import escape_unprintable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, größer, 日本語 🙂", "plain, größer, 日本語 🙂"),
        ("\x1b[2J", r"\x1b[2J"),
        ("two\nlines\t", r"two\nlines\t"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("right\u202eto left", r"right\u202eto left"),
        ("no utf-8 \udcff", r"no utf-8 \xff"),
        ("\ud800", r"\ud800"),
    ],
)
def test_unprintable_characters_are_escaped(text: str, expected: str) -> None:
    assert escape_unprintable(text) == expected


@given(st.text(st.characters()))
def test_escaped_text_is_printable(text: str) -> None:
    assert escape_unprintable(text).isprintable()
    escape_unprintable(text).encode("utf-8")
