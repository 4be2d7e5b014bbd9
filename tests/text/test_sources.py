import gzip
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.errors import CorpusError
from charlm.text.corpus import CorpusReader, read_corpus
from charlm.text.sources import READ_BYTES, join_texts, read_named


def test_a_folder_gives_its_text_files_in_order() -> None:
    for name, data in (("b.txt", b"B"), ("a.txt", b"A"), ("c/d.txt", b"D"), ("empty", b""), ("x.png", b"\x89PNG\0")):
        path = Path("folder", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    Path("folder/.hidden").write_bytes(b"H")
    Path("folder/late").write_bytes(b"x" * 3 * READ_BYTES + b"\0")
    found = read_corpus(["folder"])
    assert found.text == "A\nB\nD"
    assert found.name == "folder"
    (skipped,) = found.notes
    assert skipped.startswith("folder: skipped 2 file(s) with NUL bytes")
    assert skipped.endswith(": late, x.png")
    assert read_corpus(["folder/*.txt"]).text == "A\nB"


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


def test_each_file_of_a_folder_has_the_encoding_of_its_mark() -> None:
    Path("folder").mkdir()
    for name, encoding in (("a", "utf-16"), ("b", "utf-8-sig"), ("c", "utf-32"), ("d", "cp1252")):
        Path("folder", name).write_text(f"café {name}\n", encoding=encoding)
    assert read_corpus(["folder"], encoding="cp1252").text == "café a\ncafé b\ncafé c\ncafé d\n"
    Path("wide").mkdir()
    Path("wide/a").write_bytes("café\n".encode("utf-16-le"))  # without a mark
    with pytest.raises(CorpusError, match="wide: no text file"):
        read_corpus(["wide"])
    assert read_corpus(["wide"], encoding="utf-16-le").text == "café\n"


@given(st.lists(st.text(alphabet="a\n", max_size=3), max_size=5))
def test_joined_texts_start_on_new_lines(texts: list[str]) -> None:
    joined = "".join(join_texts([list(text) for text in texts]))
    present = [text for text in texts if text]
    lines = [
        text if text.endswith("\n") or index == len(present) - 1 else f"{text}\n" for index, text in enumerate(present)
    ]
    assert joined == "".join(lines)


def test_links_to_nothing_and_to_themselves_are_errors() -> None:
    Path("loop").symlink_to("loop")
    Path("lost").symlink_to("missing")
    with pytest.raises(CorpusError, match=r"^loop: cannot be read \(Too many levels of symbolic links\)"):
        CorpusReader(["loop"])
    with pytest.raises(CorpusError, match=r"^lost: no such file, .*; the named corpora are"):
        CorpusReader(["lost"])
    Path("text").write_text("x", encoding="utf-8")
    assert CorpusReader(["[lt]*"]).sources == ("text",)
    with pytest.raises(CorpusError, match="'': not a valid file name"):
        CorpusReader([""])


def test_folders_that_cannot_be_listed_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("open", "closed"):
        Path("folder", name).mkdir(parents=True)
        Path("folder", name, "text").write_text("x", encoding="utf-8")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    corpus = CorpusReader(["folder"])
    assert corpus.sources == ("folder/open/text",)
    assert corpus.notes == ["folder/closed: skipped, because the folder cannot be read (Permission denied)"]


def test_a_text_that_unpacks_to_more_than_the_limit_is_an_error_before_it_fills_the_memory() -> None:
    Path("bomb.gz").write_bytes(gzip.compress(b"ab\n" * 3_000_000, compresslevel=1))
    tracemalloc.start()
    with pytest.raises(CorpusError, match=r"bomb\.gz: longer than 1,000,000 characters.*; set max_input") as caught:
        read_corpus(["bomb.gz"], max_input=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.fields == ("max_input",)
    assert peak < 60_000_000
    assert len(read_corpus(["bomb.gz"], max_input=9_000_000).text) == 9_000_000
