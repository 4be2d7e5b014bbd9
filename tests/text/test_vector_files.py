import gzip
import io
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charlm.errors import VectorsError
from charlm.text import packed_files
from charlm.text.vector_files import VectorFile

EXPECTED = {"the": [0.5, -2, 3], "cat": [1, 2, 3], "café": [7, 8, 9]}


def read(content: bytes, name: str = "v.txt") -> dict[str, list[float]]:
    """Return all vectors of a file, after checking that a search for each word finds the same."""
    Path(name).write_bytes(content)
    file = VectorFile(Path(name))
    found = {word: vector.tolist() for words, vectors in file.blocks() for word, vector in zip(words, vectors)}  # noqa: B905
    assert {word: vector.tolist() for word, vector in file.read(found).items()} == found
    return found


def binary(vectors: dict[str, list[float]], separator: bytes = b"\n") -> bytes:
    """Return a file in word2vec's binary format; the original program writes newlines between vectors, gensim none."""
    rows = (word.encode() + b" " + np.array(row, "<f4").tobytes() + separator for word, row in vectors.items())
    dim = len(next(iter(vectors.values())))
    return f"{len(vectors)} {dim}\n".encode() + b"".join(rows)


@pytest.mark.parametrize(
    "content",
    [
        b"the\t0.5\t-2\t3\ncat\t1\t2\t3\ncaf\xc3\xa9\t7\t8\t9\n",
        b"the\t0.5 -2 3\ncat 1\t2 3\ncaf\xc3\xa9 7 8 9",
        b"the   0.5 -2   3  \ncat    1   2   3\ncaf\xc3\xa9   7   8   9\n",
        b"  the 0.5 -2 3\n  cat 1 2 3\n caf\xc3\xa9 7 8 9\n",
        b"\xef\xbb\xbfthe 0.5 -2 3\ncat 1 2 3\ncaf\xc3\xa9 7 8 9\n",
        b"\xef\xbb\xbf3 3\nthe 0.5 -2 3\ncat 1 2 3\ncaf\xc3\xa9 7 8 9\n",
        b" 3 3 \r\nthe 0.5 -2 3\r\n\r\ncat 1 2 3 \r\ncaf\xc3\xa9 7 8 9\r\n\r\n",
        b"3 3\nthe 5e-1 -2.0 +3\ncat 01 2 3.\ncaf\xc3\xa9 7 8 9",
        binary(EXPECTED),
        binary(EXPECTED, b""),
    ],
)
def test_the_same_vectors_are_read_from_every_layout(content: bytes) -> None:
    assert read(content) == EXPECTED
    assert read(gzip.compress(content), "v.gz") == EXPECTED
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("v.bin" if b"\0" in content else "v.txt", content)
    assert read(packed.getvalue(), "v.zip") == EXPECTED


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_chunks_of_any_size_give_the_same_vectors(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_files, "BLOCK_BYTES", chunk)
    text = "".join(f"{word} {' '.join(map(str, row))}\n" for word, row in EXPECTED.items()).encode()
    for content in (text, b"\xef\xbb\xbf3 3\n" + text, binary(EXPECTED), binary(EXPECTED, b"")):
        assert read(content) == EXPECTED


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(st.characters(exclude_characters=" \n", exclude_categories=["Cs"]), min_size=1, max_size=5),
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from([b"", b"\n"]),
)
def test_binary_vectors_are_read_exactly(vectors: dict[str, list[float]], separator: bytes) -> None:
    assert read(binary(vectors, separator), "v.bin") == vectors


def test_gensim_writes_what_is_read(rng: np.random.Generator) -> None:
    keyed_vectors = pytest.importorskip("gensim.models").KeyedVectors(6)
    words = ["the", "café", "New_York", "7"]
    keyed_vectors.add_vectors(words, rng.standard_normal((4, 6)).astype(np.float32))
    for is_binary in (False, True):
        keyed_vectors.save_word2vec_format("v", binary=is_binary)
        found = VectorFile(Path("v")).read(words)
        for word in words:
            np.testing.assert_array_equal(found[word], keyed_vectors[word])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"the 1 2 3\nking 4 1 2 3\ncat 1 2 3\n", "line 2: 4 numbers instead of 3"),
        (b"king 4 1 2 3\nthe 1 2 3\ncat 1 2 3\n", "line 1: 4 numbers instead of 3"),
        (b"the 1 2 3\ncat 1 2\nking 1 2 3\n", "line 2: 2 numbers instead of 3"),
        (b"the 1 2\ncat 1 2 3\nking 1 2 3\n", "line 1: 2 numbers instead of 3"),
        (b"the 1 nan 3\ncat 1 2 3\n", "line 1: 'nan' is not a finite float32 number"),
        (b"the 1 x 3\ncat 1 2 3\nking 1 2 3\n", "line 1: 'x' is not a finite float32 number"),
        (b" 1 2 3\ncat 1 2 3\nking 1 2 3\n", "line 1: no word before the numbers"),
        (b"the 1 2 3\n 1 2 3\nking 1 2 3\n", "line 2: no word before the numbers"),
        (b"400000 3\nthe 1 2 3\ncat 1 2 3\n", "2 vectors, but its header says 400,000"),
        (b"1 3\nthe 1 2 3\ncat 1 2 3\n", "2 vectors, but its header says 1"),
        (b"2 3\nthe 1 2\ncat 1 2\n", "line 2: 2 numbers instead of 3"),
        (b"2 999999999\nthe 1 2\ncat 1 2\n", "line 1: no word vector"),
        ("the 1 2 3\n".encode("utf-16"), "in UTF-16; convert"),
        (binary(EXPECTED)[:-5], "vector 3: incomplete; the header says 3 vectors"),
        (b"9" + binary(EXPECTED), "vector 4: incomplete; the header says 93 vectors"),
        (binary({"a": [1, float("nan"), 2]}), "vector 1: a number is not finite"),
        (b"1 3\n\xff\xfe " + bytes(12), "vector 1: its word is not valid UTF-8"),
    ],
)
def test_what_cannot_be_read_is_named(content: bytes, message: str) -> None:
    with pytest.raises(VectorsError, match=f"^v.txt: {message}"):
        read(content)


def test_blank_lines_are_skipped_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small compressed file may have billions of them."""
    monkeypatch.setattr(packed_files, "BLOCK_BYTES", 1 << 16)
    Path("v.gz").write_bytes(gzip.compress(b"the 1 2 3\n" + b"\n" * 30_000_000 + b"cat 1 x 3\n", compresslevel=1))
    began = time.process_time()
    with pytest.raises(VectorsError, match="line 30,000,002: 'x' is not"):
        VectorFile(Path("v.gz")).read(["the", "cat"])
    assert time.process_time() - began < 4  # 0.5 seconds, and 8 seconds line by line


def test_an_unwanted_vector_may_be_invalid() -> None:
    Path("v.txt").write_bytes(b"the 1 2 3\nking 4 1 2 3\ncat 1 x 3\n")
    assert VectorFile(Path("v.txt")).read(["the"])["the"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_standard_input_is_read(pack: type[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (binary(EXPECTED), b"the 0.5 -2 3\n"):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(pack(content))))
        file = VectorFile(Path("-"))
        for _ in range(2):
            assert file.read(["the"])["the"].tolist() == EXPECTED["the"]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO()))
    with pytest.raises(VectorsError, match=r"^standard input: empty"):
        VectorFile(Path("-"))
