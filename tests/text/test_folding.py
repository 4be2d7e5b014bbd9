import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.text.folding import NORMAL_FORMS, Folding

FOLDINGS = [Folding(lowercase, form) for lowercase in (False, True) for form in NORMAL_FORMS]
TEXT = st.text(
    st.characters() | st.sampled_from("aEé\u0301\u0323\u0130\u03a3\ufb01\u1100\u1161\u11a8\uac00\uff76\uff9e \n")
)


@pytest.mark.parametrize("folding", FOLDINGS)
@given(text=TEXT)
def test_folding_is_that_of_python_and_changes_nothing_twice(folding: Folding, text: str) -> None:
    folded = folding.fold(text)
    expected = text
    for lower in (False, True):
        expected = expected.lower() if lower and folding.lowercase else expected
        if folding.normalize != "none":
            expected = unicodedata.normalize(folding.normalize, expected)  # type: ignore[arg-type]
    assert folded == expected
    if "\u03a3" not in text.upper():  # the lower case of a sigma depends on its neighbours
        assert folding.fold(folded) == folded


@pytest.mark.parametrize("folding", FOLDINGS)
@given(text=TEXT)
def test_parts_of_the_original_text_fold_to_the_parts_of_the_folded_text(folding: Folding, text: str) -> None:
    folded = folding.fold(text)
    ends = folding.original_ends(text, range(len(folded) + 1))
    assert ends == sorted(ends)
    assert (ends[0], ends[-1]) == (0, len(text) if folded else 0)
    for end, original_end in enumerate(ends):
        covered = folding.fold(text[:original_end])
        assert covered.replace("\u03c2", "\u03c3").startswith(folded[:end].replace("\u03c2", "\u03c3"))


def test_the_place_of_each_character_is_found() -> None:
    folding = Folding(lowercase=True, normalize="NFKC")
    text = "E\u0301a\ufb01x"
    assert folding.fold(text) == "\u00e9afix"
    assert folding.original_ends(text, range(6)) == [0, 2, 3, 4, 4, 5]


def test_an_unknown_normal_form_is_refused() -> None:
    with pytest.raises(ValueError, match="normalize must be one of none, NFC, NFKC"):
        Folding(normalize="nfc")
