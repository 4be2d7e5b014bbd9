from pathlib import Path

import pytest

from charlm.errors import CorpusError
from charlm.text.corpus import CorpusReader, read_corpus
from charlm.text.sources import READ_BYTES, read_named


def test_a_folder_gives_its_text_files_in_order() -> None:
    for name, data in (("b.txt", b"B"), ("a.txt", b"A"), ("c/d.txt", b"D"), ("empty", b""), ("x.png", b"\x89PNG\0")):
        path = Path("folder", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    Path("folder/.hidden").write_bytes(b"H")
    Path("folder/late").write_bytes(b"x" * 3 * READ_BYTES + b"\0")
    found = read_corpus(["folder"])
    assert found.text == "ABD"
    assert found.name == "folder"
    assert read_corpus(["folder/*.txt"]).text == "AB"


def test_a_file_name_that_the_system_rejects_is_a_missing_text() -> None:
    for spec in ("a\0b", "x" * 5000, "/dev/null/x"):
        with pytest.raises(CorpusError):
            CorpusReader([spec])


def test_a_missing_text_suggests_similar_names() -> None:
    Path("verse.txt").write_text("a", encoding="utf-8")
    with pytest.raises(
        CorpusError, match=r"^vers\.txt: no such file, folder or named corpus; did you mean verse\.txt\?$"
    ):
        CorpusReader(["vers.txt"])
    with pytest.raises(CorpusError, match=r"^zyzzy: no such named corpus; the named corpora are hello, "):
        read_named("zyzzy")
