import json
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from charlm.config import TokenizerConfig
from charlm.errors import CheckpointError, ConfigError
from charlm.text import characters, words
from charlm.text.folding import NORMAL_FORMS, Folding
from charlm.text.tokenizer import (
    UNKNOWN_ID,
    CharTokenizer,
    Tokenizer,
    WhitespaceTokenizer,
    WordTokenizer,
    make_tokenizer,
    tokenizer_from_dict,
)
from charlm.text.word_rules import WORD_RULES
from charlm.text.words import JOIN, UNKNOWN_WORD
from tests.conftest import VERSE

WORDS = [
    "the",
    "The",
    "cat",
    "don't",
    "won't",
    "it's",
    "o'er",
    "'tis",
    "ever-changing",
    "1,234.5",
    "3.14",
    "3",
    "a1",
    "_x",
    "n't",
    "é",
    "ß",
    "中文",
    "नमस्ते",
    "हिन्दी",
    "مُحَمَّد",
    "ที่",
    "e\u0301te\u0301",
    "l'eau",
    "wo\u00adrd",
    "\u0301",
]
MARKS = [
    "🙂",
    "👩\u200d👧",
    "🇩🇪",
    "❤\ufe0f",
    "—",
    "…",
    "...",
    "--",
    '"',
    "'",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ".",
    ";",
    ":",
    "!",
    "?",
    "#",
    "==",
    "<",
    "<unk>",
    "<eos>",
    "<join>",
    "�",
]
PIECES = st.sampled_from([*WORDS, *MARKS])
GAPS = st.sampled_from(["", "", " ", " ", " ", "  ", "     ", "\n", "\n\n", "\r\n", "\t", "\N{NO-BREAK SPACE}", " \n "])
TEXTS = st.one_of(
    st.lists(st.tuples(PIECES, GAPS), max_size=30).map(lambda pairs: "".join(a + b for a, b in pairs)),
    st.text(max_size=60),
)


def plain_word_ids(tokenizer: WordTokenizer, text: str) -> list[int]:
    """Encode a text without unknown tokens by the rules of `charlm.text.words`, in one loop over its tokens."""
    index = {token: number for number, token in enumerate(tokenizer.tokens)}
    rules = tokenizer.to_dict()
    ids: list[int] = []
    gap = ""
    pieces = (piece for chunk in re.split("([ \n])", text + "\n") for piece in tokenizer.rule.cut(chunk))
    for token in pieces:
        if token == " ":
            gap += " "
            continue
        new_ids = [index[token]] if token in index else [index[token[0]]] * len(token)
        for new_id in new_ids:
            implied = bool(ids) and ids[-1] not in rules["no_space_after"] and new_id not in rules["no_space_before"]
            if gap != (" " if implied else ""):
                runs = [gap] if gap in index else list(gap)
                ids += [index[run] for run in runs] if gap else [index[JOIN]]
            ids.append(new_id)
            gap = ""
    return ids[:-1]


@given(TEXTS)
def test_characters_are_decoded_exactly(text: str) -> None:
    tokenizer = CharTokenizer.from_text(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.lists(st.text(st.characters()), max_size=5))
def test_a_character_vocabulary_does_not_depend_on_the_pieces(pieces: list[str]) -> None:
    whole = "".join(pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(characters, "BLOCK_CHARS", 3)
        tokenizer = CharTokenizer.from_pieces(pieces)
        ids = tokenizer.encode(whole)
    assert list(tokenizer.tokens[1:]) == sorted(set(whole))
    np.testing.assert_array_equal(ids, [1 + sorted(set(whole)).index(char) for char in whole])
    assert tokenizer.decode(ids) == whole
    assert set(tokenizer.encode("a\x7f🙂").tolist()) - {0} <= set(ids.tolist())


@given(TEXTS, st.sampled_from(sorted(WORD_RULES)))
def test_words_are_decoded_exactly(text: str, word_rule: int) -> None:
    tokenizer = WordTokenizer.from_text([text, "\n"], word_rule=word_rule)
    ids = tokenizer.encode(text)
    assert UNKNOWN_ID not in ids
    assert tokenizer.decode(ids) == text


@given(TEXTS, TEXTS, st.sampled_from(sorted(WORD_RULES)))
def test_another_text_of_known_words_is_decoded_exactly(text: str, other: str, word_rule: int) -> None:
    tokenizer = WordTokenizer.from_text([text], word_rule=word_rule)
    ids = tokenizer.encode(other)
    assume(UNKNOWN_ID not in ids)
    assert tokenizer.decode(ids) == other


@given(TEXTS, TEXTS, st.sampled_from(sorted(WORD_RULES)))
def test_encoding_equals_a_plain_loop_over_the_tokens(text: str, other: str, word_rule: int) -> None:
    tokenizer = WordTokenizer.from_text([text, other], word_rule=word_rule)
    assert tokenizer.encode(other).tolist() == plain_word_ids(tokenizer, other)


@given(st.lists(st.integers(0, 40), max_size=20))
def test_decoding_more_words_only_appends_text(ids: list[int]) -> None:
    for tokenizer in (WordTokenizer.from_text([VERSE]), WhitespaceTokenizer.from_text([VERSE])):
        texts = [tokenizer.decode(ids[:length]) for length in range(len(ids) + 1)]
        assert all(longer.startswith(shorter) for shorter, longer in pairwise(texts))


@pytest.mark.parametrize(
    ("prompt", "ids_of", "left_out"),
    [
        ("the cat ", "the cat", True),
        ("the cat, ", "the cat,", True),
        ("gnu ", "gnu", True),  # an unknown word
        ("the cat", "the cat", False),
        ("the cat  ", "the cat  ", False),  # two spaces are a token
        ("the cat\t", "the cat\t", False),
        ("the cat\t ", "the cat\t ", False),
        ("the cat\n", "the cat\n", False),
        ("the cat\n ", "the cat\n ", False),  # indentation
        ("the (", "the (", False),
        ("the ( ", "the ( ", False),  # no space is implied after a bracket
        (" ", " ", False),
        ("", "", False),
    ],
)
def test_the_final_space_of_a_prompt_is_no_token_if_the_next_word_implies_it(
    prompt: str, ids_of: str, left_out: bool
) -> None:
    tokenizer = WordTokenizer.from_text(["the cat (a dog), sat\n  the cat\tand  a dog\n"])
    ids, left = tokenizer.encode_prompt(prompt)
    assert (ids.tolist(), left) == (tokenizer.encode(ids_of).tolist(), left_out)
    for word in ("dog", "zebra") if left else ():  # a word after the prompt is encoded in the same way
        assert tokenizer.encode(prompt + word).tolist()[: len(ids)] == ids.tolist()


@given(TEXTS)
def test_words_do_not_depend_on_the_block_size(text: str) -> None:
    whole = WordTokenizer.from_text([text, "\n"])
    split = WhitespaceTokenizer.from_text([text])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "BLOCK_CHARS", 4)
        in_blocks = WordTokenizer.from_text([text, "\n"])
        assert in_blocks.to_dict() == whole.to_dict()
        ids, split_ids = in_blocks.encode(text), split.encode(text)
        assert split.to_dict() == WhitespaceTokenizer.from_text([text]).to_dict()
    np.testing.assert_array_equal(ids, whole.encode(text))
    np.testing.assert_array_equal(split_ids, split.encode(text))


def test_implied_spaces_have_no_token() -> None:
    text = 'He said (twice): "No, I don\'t -- 3.14 of them!"\nAnd went.\n'
    tokenizer = WordTokenizer.from_text([text])
    tokens = [tokenizer.tokens[index] for index in tokenizer.encode(text)]
    assert tokens[:9] == ["He", "said", "(", "twice", ")", ":", " ", '"', "No"] or tokens[6] == '"'
    assert tokens[-5:] == ["\n", "And", "went", ".", "\n"]
    assert "do" in tokens
    assert "n't" in tokens
    assert JOIN not in tokens


def test_the_vocabulary_is_sorted_by_frequency_then_by_first_occurrence() -> None:
    text = "b a c a b d\n"
    assert WhitespaceTokenizer.from_text([text]).tokens == (UNKNOWN_WORD, "b", "a", "<eos>", "c", "d")
    known = WordTokenizer.from_text([text]).tokens
    assert [token for token in known if token in "abcd"] == ["b", "a", "c", "d"]


def test_vocabulary_size_and_minimum_count_limit_the_vocabulary() -> None:
    text = "one two two three three three four four four four\n" * 2
    bounded = WhitespaceTokenizer.from_text([text], max_vocab=4)
    assert bounded.tokens == (UNKNOWN_WORD, "four", "three", "<eos>")
    rare = WhitespaceTokenizer.from_text([text], min_count=6)
    assert rare.tokens == (UNKNOWN_WORD, "four", "three", "<eos>")
    assert bounded.unknown_in(text) == ["one", "two"]
    assert rare.encode("one four\n").tolist() == [UNKNOWN_ID, 1, 3]
    exact = WordTokenizer.from_text([text], max_vocab=6)
    assert exact.vocab_size == 6
    assert {"four", "three"} < set(exact.tokens)
    assert exact.decode(exact.encode("one three\n")) == "<unk> three\n"


def test_splitting_at_whitespace_gives_words_and_newlines() -> None:
    text = " no it was n't black <unk> \n  N years \n\n last"
    tokenizer = WhitespaceTokenizer.from_text([text])
    ids = tokenizer.encode(text)
    assert len(ids) == len(text.split()) + text.count("\n")
    assert ids[5] == UNKNOWN_ID
    assert tokenizer.decode(ids) == "no it was n't black <unk>\nN years\n\nlast"
    assert tokenizer.encode("<eos> N").tolist()[0] == UNKNOWN_ID
    assert tokenizer.decode(tokenizer.encode("\n")) == "\n"


def test_rare_characters_are_left_out_of_the_vocabulary() -> None:
    text = "aaaabbbccd\n日本日日"
    assert CharTokenizer.from_pieces([text], min_count=3).tokens[1:] == ("a", "b", "日", "\n")
    assert CharTokenizer.from_pieces([text], max_vocab=4).tokens[1:] == ("a", "b", "\n")  # b and 日 are as frequent
    assert CharTokenizer.from_pieces(["abab", "b"], max_vocab=2).tokens[1:] == ("b",)
    tokenizer = make_tokenizer(TokenizerConfig(min_count=2, max_vocab=8), [text])
    assert tokenizer.unknown_in(text) == ["d", "本"]
    assert tokenizer.decode(tokenizer.encode(text)) == "aaaabbbcc\ufffd\n日\ufffd日日"


@given(st.lists(st.text(max_size=40)), st.integers(1, 5), st.none() | st.integers(2, 20))
def test_the_most_frequent_characters_are_kept(pieces: list[str], min_count: int, max_vocab: int | None) -> None:
    counts = Counter("".join(pieces))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(characters, "BLOCK_CHARS", 3)
        tokenizer = CharTokenizer.from_pieces(pieces, min_count=min_count, max_vocab=max_vocab)
    ranked = sorted(counts, key=lambda char: (-counts[char], char))
    frequent = [char for char in ranked if counts[char] >= min_count and char != "\n"]
    expected = frequent[: None if max_vocab is None else max_vocab - 1 - ("\n" in counts)]
    assert sorted(tokenizer.tokens[1:]) == sorted([*expected, *(["\n"] if "\n" in counts else [])])


@given(TEXTS, st.booleans(), st.sampled_from(NORMAL_FORMS))
def test_folded_text_is_decoded_exactly(text: str, lowercase: bool, normalize: str) -> None:
    folding = Folding(lowercase, normalize)
    folded = folding.fold(text)
    settings = {"lowercase": lowercase, "normalize": normalize}
    tokenizers: list[Tokenizer] = [
        CharTokenizer.from_pieces([text], **settings),  # type: ignore[arg-type]
        WordTokenizer.from_text([text], **settings),  # type: ignore[arg-type]
    ]
    for tokenizer in tokenizers:
        assert tokenizer.decode(tokenizer.encode(text)) == folded
        again = tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict())))
        assert again.folding == folding
        np.testing.assert_array_equal(again.encode(text), tokenizer.encode(text))
        assert again.unknown_in(text) == []


def test_a_vocabulary_without_folding_has_no_new_keys() -> None:
    assert set(CharTokenizer.from_text("a").to_dict()) == {"kind", "chars"}
    assert "normalize" not in WordTokenizer.from_text(["a"]).to_dict()


@pytest.mark.parametrize("damage", [{"lowercase": 1}, {"normalize": "NFX"}, {"normalize": None}, {"normalize": []}])
def test_an_invalid_folding_is_an_error(damage: dict[str, object]) -> None:
    for tokenizer in (CharTokenizer.from_text("a"), WordTokenizer.from_text(["a"])):
        with pytest.raises(CheckpointError):
            tokenizer_from_dict({**tokenizer.to_dict(), **damage})


def test_lowercase_applies_to_the_vocabulary_and_to_encoding() -> None:
    for words_of in (WordTokenizer, WhitespaceTokenizer):
        tokenizer = words_of.from_text(["To BE\n"], lowercase=True)
        assert tokenizer.decode(tokenizer.encode("TO be\n")) == "to be\n"
        again = tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict())))
        assert again.decode(again.encode("TO be\n")) == "to be\n"


def test_an_old_vocabulary_keeps_its_rule_for_words() -> None:
    data = WordTokenizer.from_text(["o'er हिन्दी\n"], word_rule=1).to_dict()
    assert "word_rule" not in data  # as in files that were written before there was a second rule
    old = tokenizer_from_dict(data)
    assert [old.tokens[index] for index in old.encode("o'er")] == ["o", "'", "er"]
    assert UNKNOWN_ID not in old.encode("हिन्दी o'er")
    new = tokenizer_from_dict(WordTokenizer.from_text(["o'er हिन्दी\n"]).to_dict())
    assert [new.tokens[index] for index in new.encode("o'er हिन्दी")] == ["o'er", "हिन्दी"]


@given(TEXTS)
def test_a_tokenizer_is_restored_from_json(text: str) -> None:
    for tokenizer in (
        CharTokenizer.from_text(text),
        WordTokenizer.from_text([text]),
        WhitespaceTokenizer.from_text([text]),
    ):
        again = tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict())))
        assert again.to_dict() == tokenizer.to_dict()
        np.testing.assert_array_equal(again.encode(text), tokenizer.encode(text))


@pytest.mark.parametrize(
    "damage",
    [
        {"kind": "letters"},
        {"split": "syllables"},
        {"tokens": []},
        {"tokens": ["<unk>", "a", "a", "\n", " ", JOIN]},
        {"tokens": ["a", "<unk>", "\n", " ", JOIN]},
        {"tokens": ["<unk>", 1, "\n", " ", JOIN]},
        {"tokens": ["<unk>", "a", " ", JOIN]},
        {"tokens": "<unk>"},
        {"no_space_before": [99]},
        {"no_space_before": [-1]},
        {"no_space_after": ["1"]},
        {"no_space_after": [True]},
        {"lowercase": "no"},
        {"word_rule": 0},
        {"word_rule": 99},
        {"word_rule": "2"},
        {"word_rule": True},
    ],
)
def test_an_invalid_vocabulary_is_an_error(damage: dict[str, object]) -> None:
    valid = WordTokenizer.from_text(["a b\n"]).to_dict()
    with pytest.raises(CheckpointError):
        tokenizer_from_dict({**valid, **damage})
    with pytest.raises(CheckpointError):
        tokenizer_from_dict({"kind": "word", "split": "whitespace", "tokens": ["<unk>"], "lowercase": False})


def test_clearing_the_chunk_cache_does_not_change_the_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = WordTokenizer.from_text([VERSE])
    before = tokenizer.encode(VERSE)
    monkeypatch.setattr("charlm.text.words.MAX_CHUNKS", 3)
    np.testing.assert_array_equal(tokenizer.encode(VERSE), before)
    np.testing.assert_array_equal(tokenizer.encode(VERSE), before)


def test_word_settings_are_refused_for_characters() -> None:
    with pytest.raises(ConfigError, match="split applies to words only"):
        TokenizerConfig(split="whitespace")
