import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.text.escapes import unescape


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("", ""),
        ("plain größer 'text' \"\t", "plain größer 'text' \"\t"),
        (r"ROMEO:\n", "ROMEO:\n"),
        (r"a\tb\r\n", "a\tb\r\n"),
        (r"\\n", r"\n"),  # a backslash and the letter n
        (r"\\\n", "\\\n"),
        (r"C:\\new\\table", r"C:\new\table"),
        (r"\u00e9\u65E5", "é日"),
        (r"\u00e9f", "éf"),
        (r"\\u00e9", r"\u00e9"),
    ],
)
def test_escape_sequences_are_replaced(typed: str, text: str) -> None:
    assert unescape(typed) == text


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (r"a\x41", r"\x is not an escape sequence; write \\ for a backslash"),
        (r"\d+", r"\d is not an escape sequence"),
        ("end\\", r"\ is not an escape sequence"),
        ("\\\n", "\\\n is not an escape sequence"),
        (r"\u12g", r"\u12 is not an escape sequence"),
        (r"\ud83d", r"\ud83d is half of a character"),
    ],
)
def test_other_uses_of_a_backslash_are_refused(typed: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        unescape(typed)


@given(st.text())
def test_every_text_can_be_typed(text: str) -> None:
    assert unescape(text.replace("\\", "\\\\")) == text


@given(st.text(st.sampled_from("a\n\t\r\\é日"), max_size=20))
def test_the_sequences_mean_the_same_as_in_json(text: str) -> None:
    assert unescape(json.dumps(text)[1:-1]) == text
