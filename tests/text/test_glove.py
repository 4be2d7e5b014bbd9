import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charlm.errors import VectorsError
from charlm.text.glove import (
    VectorFile,
    embed_vocabulary,
    nearest,
    nearest_in_file,
    read_vectors,
    write_vectors,
)

ROWS = "the 0.1 -0.2 3e-4\ncat 1 2 3\n. -0.5 0.25 0.125\n. . . 7 8 9\nqueen 1.1 2 2.9\n"


@pytest.fixture
def file(tmp_path: Path) -> VectorFile:
    path = tmp_path / "vectors.txt"
    path.write_text(ROWS, encoding="utf-8")
    return VectorFile(path)


def plain_loop(text: str) -> dict[str, np.ndarray]:
    """Read vectors in a loop over the lines. Words must not contain spaces."""
    vectors = {}
    for line in text.splitlines():
        values = line.split()
        vectors[values[0]] = np.asarray(values[1:], dtype="float32")
    return vectors


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3), min_size=1)
)
def test_vectors_equal_those_of_a_plain_loop(tmp_path: Path, table: list[list[float]]) -> None:
    text = "".join(f"w{number} {' '.join(map(repr, row))}\n" for number, row in enumerate(table))
    path = tmp_path / "v.txt"
    path.write_text(text, encoding="utf-8")
    expected = plain_loop(text)
    found = read_vectors(VectorFile(path), expected)
    assert found.keys() == expected.keys()
    for word, vector in expected.items():
        assert found[word].dtype == np.float32
        np.testing.assert_array_equal(found[word], vector)


def test_only_lines_of_wanted_words_are_parsed(file: VectorFile) -> None:
    file.path.write_text(ROWS + "unwanted x y z\n", encoding="utf-8")
    assert set(read_vectors(file, ["cat", "dog"])) == {"cat"}
    with pytest.raises(VectorsError, match=r"vectors\.txt: line 6: "):
        read_vectors(file, ["unwanted"])


def test_a_word_may_contain_spaces(file: VectorFile) -> None:
    found = read_vectors(file, [".", ". . .", "cat"])
    np.testing.assert_array_equal(found["."], np.float32([-0.5, 0.25, 0.125]))
    np.testing.assert_array_equal(found[". . ."], np.float32([7, 8, 9]))


def test_the_first_word_may_contain_spaces_or_be_a_number(tmp_path: Path) -> None:
    for name, first in (("a", "at name@x.com 1 2 3"), ("b", "7 1 2 3"), ("c", "word 1 2 3")):
        path = tmp_path / name
        path.write_text(first + "\n", encoding="utf-8")
        assert VectorFile(path).dim == 3


def test_a_header_trailing_spaces_and_crlf_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "word2vec.txt"
    path.write_bytes(b"3 3\r\nthe 0.1 -0.2 3e-4 \r\n\r\ncat 1 2 3\r\ndog 4 5 6")
    file = VectorFile(path)
    assert file.dim == 3
    found = read_vectors(file, ["the", "cat", "dog"])
    np.testing.assert_array_equal(found["dog"], np.float32([4, 5, 6]))
    np.testing.assert_array_equal(found["the"], np.float32([0.1, -0.2, 3e-4]))


def test_compressed_files_are_read_like_plain_files(tmp_path: Path, file: VectorFile) -> None:
    packed, archive = tmp_path / "v.txt.gz", tmp_path / "v.zip"
    packed.write_bytes(gzip.compress(ROWS.encode()))
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("v.txt", ROWS)
    expected = read_vectors(file, ["the", "queen"])
    for path in (packed, archive):
        found = read_vectors(VectorFile(path), ["the", "queen"])
        assert all((found[word] == expected[word]).all() for word in expected)


def test_a_zip_of_several_files_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "glove.6B.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("glove.6B.50d.txt", ROWS)
        out.writestr("glove.6B.100d.txt", ROWS)
    with pytest.raises(VectorsError, match=r"glove\.6B\.50d\.txt, glove\.6B\.100d\.txt; unpack"):
        VectorFile(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("short.txt", b"the 1 2 3\ncat 1 2 3\ndog 1 2\n", r"short\.txt: line 3: 2 numbers instead of 3"),
        ("short2.txt", b"the 1 2 3\ndog 1 2 \n", r"short2\.txt: line 2: 2 numbers instead of 3"),
        ("latin.txt", b"the 1 2 3\ncaf\xe9 1 2 3\n", r"latin\.txt: line 2: not valid UTF-8"),
        ("words.txt", b"the 1 2 3\ncat 1 x 3\n", r"words\.txt: line 2: .*x"),
        ("large.txt", b"the 1 2 3\ncat 1 1e39 3\n", r"large\.txt: line 2: '1e39' is not a finite float32 number"),
        ("grouped.txt", b"the 1 2 3\ncat 1 1_0 3\n", r"grouped\.txt: line 2: '1_0' is not a finite float32 number"),
        ("nan.txt", b"the 1 2 3\ncat 1 nan 3\n", r"nan\.txt: line 2: 'nan' is not a finite float32 number"),
        ("empty.txt", b"", r"empty\.txt: empty"),
        ("prose.txt", b"It was a dark night.\n", r"prose\.txt: line 1: no word vector"),
        ("bad.gz", b"the 1 2 3\n", r"bad\.gz: not a valid gz file"),
        ("bad.zip", b"the 1 2 3\n", r"bad\.zip: not a valid zip file"),
        ("torn.gz", gzip.compress(ROWS.encode() * 9)[:-9], r"torn\.gz: not a valid gz file"),
    ],
)
def test_an_invalid_file_is_an_error_that_names_the_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(VectorsError, match=message):
        read_vectors(VectorFile(path), ["the", "cat", "dog"])


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VectorsError, match=r"none\.txt: cannot be read \(No such file"):
        VectorFile(tmp_path / "none.txt")


def test_missing_words_have_lower_case_or_random_vectors(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    known = rng.normal([2.0, -1.0], [0.5, 3.0], size=(400, 2)).astype(np.float32)
    path = tmp_path / "v.txt"
    with path.open("w", encoding="utf-8") as out:
        write_vectors(out, [f"w{number}" for number in range(400)], known)
    tokens = ["<unk>", "\n", "W7", *(f"w{number}" for number in range(400)), *(f"x{number}" for number in range(2000))]
    counts = np.arange(len(tokens))
    embedding, coverage = embed_vocabulary(VectorFile(path), tokens, counts, seed=1)
    assert embedding.dtype == np.float32
    np.testing.assert_array_equal(embedding[3:403], known)
    np.testing.assert_array_equal(embedding[2], known[7])
    np.testing.assert_allclose(embedding[403:].mean(axis=0), known.mean(axis=0), atol=0.2)
    np.testing.assert_allclose(embedding[403:].std(axis=0), known.std(axis=0), rtol=0.1)
    assert (coverage.types, coverage.types_found, coverage.types_in_lower_case) == (2401, 401, 1)
    assert coverage.tokens == counts[2:].sum()
    assert coverage.tokens_found == counts[2:403].sum()
    assert coverage.missing == [f"x{number}" for number in range(1999, 1989, -1)]
    assert "401 of 2,401 words found" in str(coverage)
    np.testing.assert_array_equal(embedding, embed_vocabulary(VectorFile(path), tokens, counts, seed=1)[0])


def test_a_file_without_any_word_of_the_vocabulary_is_an_error(file: VectorFile) -> None:
    with pytest.raises(VectorsError, match="none of the 2 words"):
        embed_vocabulary(file, ["<unk>", "zyzzy"], np.array([0, 1]), seed=1)


def test_written_vectors_are_read_back_exactly(tmp_path: Path, rng: np.random.Generator) -> None:
    tokens = ["<unk>", "\n", " ", "a", "é", "two words"]
    vectors = rng.standard_normal((6, 4)).astype(np.float32) * np.float32(1e-3)
    out = io.StringIO()
    write_vectors(out, tokens, vectors)
    path = tmp_path / "v.txt"
    path.write_text(out.getvalue(), encoding="utf-8")
    found = read_vectors(VectorFile(path), ["<unk>", "</s>", " ", "a", "é", "two words"])
    np.testing.assert_array_equal(np.array(list(found.values())), vectors)
    embedding, _ = embed_vocabulary(VectorFile(path), tokens, np.ones(6, dtype=int), seed=1)
    np.testing.assert_array_equal(embedding, vectors)


def test_nearest_words_have_the_largest_cosines(file: VectorFile, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["the", "cat", ".", ". . .", "queen"]
    table = read_vectors(file, words)
    cosine = {w: float(v @ table["cat"] / np.linalg.norm(v) / np.linalg.norm(table["cat"])) for w, v in table.items()}
    expected = sorted((word for word in words if word != "cat"), key=lambda word: -cosine[word])
    for rows in (2, 4096):
        monkeypatch.setattr("charlm.text.glove.BLOCK_ROWS", rows)
        found = nearest_in_file(file, "cat", 3)
        assert [word for word, _ in found] == expected[:3]
        assert [value for _, value in found] == pytest.approx([cosine[word] for word in expected[:3]])
    assert nearest(words, np.array([table[word] for word in words]), table["cat"], 3, leave_out="cat") == found
    assert nearest_in_file(file, "Cat", 1)[0][0] == "queen"
    with pytest.raises(VectorsError, match="'dog': not in"):
        nearest_in_file(file, "dog", 3)


def test_nearest_words_in_a_file_with_an_invalid_line_are_an_error(file: VectorFile) -> None:
    file.path.write_text(ROWS + "dog 1 2 x\n", encoding="utf-8")
    with pytest.raises(VectorsError, match=r"line 6: .*x"):
        nearest_in_file(file, "cat", 3)


def test_a_file_without_newlines_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.text.glove.BLOCK_BYTES", 8)
    monkeypatch.setattr("charlm.text.glove.MAX_LINE_BYTES", 64)
    path = tmp_path / "weights.bin"
    path.write_bytes(b"x" * 1000)
    with pytest.raises(VectorsError, match="a line of more than 64 bytes"):
        VectorFile(path)
