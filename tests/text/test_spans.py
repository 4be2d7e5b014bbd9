import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from charlm.text.spans import token_texts
from charlm.text.tokenizer import UNKNOWN_ID, CharTokenizer, Tokenizer, WhitespaceTokenizer, WordTokenizer
from charlm.text.words import JOIN, LINE_END_WORD

TEXT = 'The cat saw the dog. (It sat, the end!)\n"A cat" said: cat(dog) park\n  two  spaces\tand a tab\n'
TOKENIZERS: dict[str, Tokenizer] = {
    "characters": CharTokenizer.from_text(TEXT),
    "words": WordTokenizer.from_text([TEXT]),
    "lower-case words": WordTokenizer.from_text([TEXT], lowercase=True),
    "whitespace": WhitespaceTokenizer.from_text([TEXT]),
    "lower-case whitespace": WhitespaceTokenizer.from_text([TEXT], lowercase=True),
}
FOLDING_TOKENIZERS: dict[str, Tokenizer] = {
    "NFC characters": CharTokenizer.from_pieces([TEXT], normalize="NFC"),
    "lower-case characters": CharTokenizer.from_pieces([TEXT], lowercase=True),
    "lower-case NFKC characters": CharTokenizer.from_pieces([TEXT], lowercase=True, normalize="NFKC"),
    "NFC words": WordTokenizer.from_text([TEXT], normalize="NFC"),
    "lower-case NFKC words": WordTokenizer.from_text([TEXT], lowercase=True, normalize="NFKC"),
    "NFKC whitespace": WhitespaceTokenizer.from_text([TEXT], normalize="NFKC"),
}
DECOMPOSED = [
    "e\u0301",
    "A\u030a",
    "\u0301",
    "\ufb01",
    "\u1100\u1161\u11a8",
    "\uff76\uff9e",
    "\u0130\u0323",
    "\u2167",
    "\u00a0",
]
TEXTS = st.lists(
    st.sampled_from(["the", "The", "CAT", "cat", "dog", "zebra", "a", "don't", "3.14", "<eos>", "<join>", "<unk>"])
    | st.sampled_from(
        [" ", "  ", "\n", "\t", "\x1c", ".", "...", "!!", "(", ")", '"', "\u0130", "\u03a3", "\u00df", "\0"]
    )
    | st.text(max_size=3),
    max_size=25,
).map("".join)


def split(name: str, text: str) -> list[str]:
    tokenizer = TOKENIZERS[name]
    return token_texts(tokenizer, text, tokenizer.encode(text).tolist())


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=TEXTS)
@example(text="the\r\nthe \x85\n")
def test_parts_are_one_for_each_token_joined_are_the_text_and_name_their_token(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text).tolist()
    parts = token_texts(tokenizer, text, ids)
    assert len(parts) == len(ids)
    assert "".join(parts) == (text if ids else "")
    if "\u0130" in text:  # its lower case has two characters, which may be two tokens
        return
    lower = name.startswith("lower")
    for index, (part, token_id) in enumerate(zip(parts, ids, strict=True)):
        token, shown = tokenizer.tokens[token_id], part.lower() if lower else part
        if token == JOIN:
            assert part == ""
        elif token == LINE_END_WORD and name.endswith("whitespace"):
            assert re.match(r"[^\S\n]*\n", shown) or index == len(ids) - 1
        elif token_id != UNKNOWN_ID and index < len(ids) - 1:
            assert shown in (token, f" {token}") or (name.endswith("whitespace") and shown.split() == [token])


@pytest.mark.parametrize("name", FOLDING_TOKENIZERS)
@given(
    text=st.lists(st.sampled_from([*DECOMPOSED, "cat", "The", "dog", " ", ".", "\n"]) | st.characters()).map("".join)
)
def test_parts_of_folded_texts_are_one_for_each_token_and_join_to_the_original(name: str, text: str) -> None:
    tokenizer = FOLDING_TOKENIZERS[name]
    ids = tokenizer.encode(text).tolist()
    parts = token_texts(tokenizer, text, ids)
    assert len(parts) == len(ids)
    assert "".join(parts) == (text if ids else "")


def test_the_part_of_a_composed_character_has_its_marks() -> None:
    tokenizer = FOLDING_TOKENIZERS["lower-case NFKC characters"]
    text = "E\u0301te\u0301 \ufb01n"
    assert token_texts(tokenizer, text, tokenizer.encode(text).tolist()) == [
        *("E\u0301", "t", "e\u0301", " ", "\ufb01", "", "n")
    ]


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("lower-case words", "The cat saw the dog.", ["The", " cat", " saw", " the", " dog", "."]),
        ("words", "cat(dog) park", ["cat", "(", "dog", ")", " park"]),
        ("words", "said(the cat) (dog", ["said", "(", "the", " cat", ")", " ", "(", "dog"]),
        ("words", "dog.cat the.", ["dog", ".", "", "cat", " the", "."]),
        ("words", "The abacus a cat.", ["The", " abacus", " a", " cat", "."]),
        ("words", "The zebra gnu cat", ["The", " zebra", " gnu", " cat"]),
        ("whitespace", "The  cat <eos> x \n", ["The", "  cat", " <eos>", " x", " \n"]),
        ("whitespace", "The cat  ", ["The", " cat  "]),
        ("lower-case words", "\u0130 cat", None),
    ],
)
def test_unknown_words_and_missing_spaces_do_not_shift_the_others(
    name: str, text: str, parts: list[str] | None
) -> None:
    found = split(name, text)
    assert parts is None or found == parts
    assert "".join(found) == text
    assert found[-1].endswith(text[-1])
