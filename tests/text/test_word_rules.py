import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.text.word_rules import WORD_RULES, LetterRule, UnicodeRule

CHARACTERS = "aZé_1\u0663²'\u2019.,·\u00df-!♥\u0301\u093f\u064e\u0e34\u200c\u200d\u200b\u00ad\ufe0f"
MORE_CHARACTERS = "中ひカ한\u0e01\U0001f1e9👩\t\u00a0\x1cnstrevmld"
CHUNKS = st.text(st.sampled_from(CHARACTERS + MORE_CHARACTERS) | st.characters(exclude_characters=" \n"), max_size=20)


@pytest.mark.parametrize(
    ("chunk", "pieces"),
    [
        ("नमस्ते,", ["नमस्ते", ","]),
        ("हिन्दी", ["हिन्दी"]),
        ("مُحَمَّد", ["مُحَمَّد"]),
        ("ที่", ["ที่"]),
        ("e\u0301te\u0301!", ["e\u0301te\u0301", "!"]),
        ("q\u0308\u0301x", ["q\u0308\u0301x"]),
        ("می\u200cکنم", ["می\u200cکنم"]),  # ZWNJ
        ("क्\u200dष", ["क्\u200dष"]),  # ZWJ
        ("wo\u00adrd", ["wo\u00adrd"]),
        ("a\u200bb", ["a", "\u200b", "b"]),  # the zero width space separates words
        ("l'eau", ["l'eau"]),
        ("L\u2019été", ["L\u2019été"]),
        ("rock'n'roll", ["rock'n'roll"]),
        ("'tis", ["'", "tis"]),
        ("dogs'", ["dogs", "'"]),
        ("don't", ["do", "n't"]),
        ("CAN\u2019T", ["CA", "N\u2019T"]),
        ("she'd've", ["she", "'d", "'ve"]),
        ("o'er's", ["o'er", "'s"]),
        ("wish'd,", ["wish", "'d", ","]),
        ("'selle", ["'", "selle"]),
        ("col·lega", ["col·lega"]),
        ("end.Next", ["end", ".", "Next"]),
        ("a.5", ["a", ".", "5"]),
        ("1,234.5)", ["1,234.5", ")"]),
        ("1'000", ["1'000"]),
        ("10th", ["10th"]),
        ("12:30", ["12", ":", "30"]),
        ("NAME:text", ["NAME", ":", "text"]),
        ("end...what", ["end", "...", "what"]),
        ("中文字abc", ["中", "文", "字", "abc"]),
        ("ひらカタ", ["ひ", "ら", "カタ"]),
        ("か\u3099", ["か\u3099"]),
        ("👩\u200d👧", ["👩\u200d👧"]),
        ("👍🏽👍", ["👍🏽", "👍"]),
        ("🇩🇪🇫🇷🇩", ["🇩🇪", "🇫🇷", "🇩"]),
        ("❤\ufe0f!!!", ["❤\ufe0f", "!!!"]),
        ("!!\u0301", ["!", "!\u0301"]),
        ("\u0301abc", ["\u0301", "abc"]),
        ("__init__", ["__init__"]),
    ],
)
def test_words_have_the_boundaries_of_unicode(chunk: str, pieces: list[str]) -> None:
    assert UnicodeRule().cut(chunk) == pieces


@pytest.mark.parametrize("number", WORD_RULES)
@given(chunk=CHUNKS, before=CHUNKS, after=CHUNKS)
def test_pieces_join_to_the_chunk_and_end_at_the_same_places_in_a_text(
    number: int, chunk: str, before: str, after: str
) -> None:
    rule = WORD_RULES[number]
    pieces = rule.cut(chunk)
    assert "".join(pieces) == chunk
    for gap in " ", "\n":
        end = len(before) + 1
        for piece in pieces:
            found = rule.end(f"{before}{gap}{chunk}{gap}{after}", end)
            assert found == end + len(piece)
            end = found


@given(CHUNKS)
def test_no_boundary_stands_before_a_combining_mark(chunk: str) -> None:
    pieces = UnicodeRule().cut(chunk)
    for left, right in pairwise(pieces):
        if unicodedata.category(right[0])[0] == "M" or right[0] in "\u200c\u200d":
            assert left.isspace()


@given(st.text(st.characters(codec="ascii", exclude_characters=" \n'"), max_size=20))
def test_both_rules_agree_on_ascii_without_apostrophes(chunk: str) -> None:
    assert UnicodeRule().cut(chunk) == LetterRule().cut(chunk)


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        *(("a", True), ("_", True), ("é", True), ("3", True), ("हि", True), ("n't", False), ("'s", False)),
        *(("中", False), ("!", False), ("\u0301", False), ("👩\u200d👧", False), (" ", False), ("\n", False)),
    ],
)
def test_words_and_numbers_take_spaces(token: str, expected: bool) -> None:
    assert UnicodeRule().is_word(token) is expected
