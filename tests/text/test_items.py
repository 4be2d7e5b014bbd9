import re
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from charlm.errors import CorpusError
from charlm.text.corpus import CorpusReader
from charlm.text.items import ItemFormat, ItemText, item_ends


@pytest.mark.parametrize(
    ("kind", "text", "separator", "items"),
    [
        ("line", "Ann\nBob\n\n \nCy", "\n", ["Ann", "Bob", "Cy"]),
        ("\n", "Ann\nBob\n", "\n", ["Ann", "Bob"]),
        ("blank", "\n\nA cake\nEggs\n\n\n  \nSoup\n", "\n\n", ["A cake\nEggs", "Soup"]),
        ("\n\n", "one\n\ntwo", "\n\n", ["one", "two"]),
        ("blank", "  \n indented\nline\n\ntwo", "\n\n", [" indented\nline", "two"]),
        ("<|e|>", "one\n<|e|>\n\ntwo\n<|e|>\n\n<|e|>\n\nthree", "\n<|e|>\n\n", ["one", "two", "three"]),
        ("<|e|>", "one <|e|>two<|e|>", "<|e|>", ["one ", "two"]),
        ("\n---\n", "a\n---\nb\n---\n", "\n---\n", ["a", "b"]),
        ("|", "a|b|\n", "|", ["a", "b"]),
    ],
)
def test_a_text_is_divided_into_items(kind: str, text: str, separator: str, items: list[str]) -> None:
    form = ItemFormat.of(kind, [text])
    assert form.separator == separator
    assert list(form.split([text])) == items
    assert list(form.split(list(text))) == items  # cut anywhere


def test_a_separator_that_is_missing_is_an_error() -> None:
    with pytest.raises(CorpusError, match=r"poem\.txt: no separator '<s>' found: set items"):
        ItemFormat.of("<s>", ["a\nb\n"], "poem.txt")
    with pytest.raises(CorpusError, match="no blank line found"):
        ItemFormat.of("blank", ["a\nb\n"])


def test_a_separator_within_a_line_becomes_a_line_of_its_own_for_words() -> None:
    assert ItemFormat.of("|", ["a|b|c"]).with_own_line().separator == "\n|\n"
    for kind in ("line", "blank"):
        form = ItemFormat.of(kind, ["a\n\nb\n"])
        assert form.with_own_line() == form


@hypothesis.given(
    st.lists(st.text("ab <>\t", min_size=1).filter(str.strip), min_size=1), st.sampled_from(["\n", "--", "aba", "\n\n"])
)
def test_the_joined_items_are_divided_again(items: list[str], separator: str) -> None:
    if separator == "aba":
        items = [item.replace("a", "c") for item in items]
    text = "".join(item + separator for item in items)
    form = ItemFormat.of(separator, [text])
    assert list(form.split([text])) == items
    ids = np.frombuffer(text.encode(), dtype=np.uint8)
    ends = item_ends(ids, np.frombuffer(separator.encode(), dtype=np.uint8))
    assert ends.tolist() == [found.end() for found in re.finditer(separator, text)]


def test_ends_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "aba--bb----b-" * 30
    monkeypatch.setattr("charlm.text.items.MAX_PIECE_CHARS", 7)
    ends = item_ends(np.frombuffer(text.encode(), dtype=np.uint8), np.frombuffer(b"--", dtype=np.uint8))
    assert ends.tolist() == [found.end() for found in re.finditer("--", text)]


def test_the_text_of_the_items_can_be_read_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("names.txt").write_text("Ann\n\nBob\nCleo", encoding="utf-8")
    with CorpusReader(["names.txt"]) as corpus:
        corpus.read_through()
        text = ItemText(corpus, ItemFormat.of("line", corpus.pieces()))
        assert (text.num_items, text.lengths.tolist()) == (3, [4, 4, 5])
        assert list(text.pieces()) == ["Ann\nBob\nCleo\n"]
        assert list(text.pieces(np.array([True, False, True]))) == ["Ann\nCleo\n"]
        monkeypatch.setattr("charlm.text.items.PIECE_CHARS", 4)
        assert list(text.pieces()) == ["Ann\nBob\n", "Cleo\n"]


def test_an_endless_item_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.text.items.MAX_ITEM_CHARS", 10)
    form = ItemFormat(kind="|", separator="|")
    with pytest.raises(CorpusError, match="an item is longer than 10 characters"):
        list(form.split(["a|" + "b" * 11]))
