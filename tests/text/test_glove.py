import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charlm.errors import VectorsError
from charlm.text.glove import embed_vocabulary, name_in_files, write_vectors
from charlm.text.vector_files import VectorFile

ROWS = "the 0.1 -0.2 3e-4\ncat 1 2 3\n. -0.5 0.25 0.125\n. . . 7 8 9\nqueen 1.1 2 2.9\n"


@pytest.fixture
def file(tmp_path: Path) -> VectorFile:
    path = tmp_path / "vectors.txt"
    path.write_text(ROWS, encoding="utf-8")
    return VectorFile(path)


def read_strictly(path: Path, *, header: bool) -> dict[str, np.ndarray]:
    """Read vectors as gensim does: lines end at newlines, trailing whitespace goes, single spaces separate."""
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    if header:
        count, dim = map(int, lines.pop(0).split(b" "))
        assert count == len(lines)
    else:
        dim = len(lines[0].rstrip().decode().split(" ")) - 1
    vectors = {}
    for line in lines:
        word, *numbers = line.decode().rstrip().split(" ")
        assert len(numbers) == dim
        assert word not in vectors
        vectors[word] = np.array(list(map(float, numbers)), dtype=np.float32)
    return vectors


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
    found = VectorFile(path).read(expected)
    assert found.keys() == expected.keys()
    for word, vector in expected.items():
        assert found[word].dtype == np.float32
        np.testing.assert_array_equal(found[word], vector)


def test_only_lines_of_wanted_words_are_parsed(file: VectorFile) -> None:
    file.path.write_text(ROWS + "unwanted x y z\n", encoding="utf-8")
    assert set(file.read(["cat", "dog"])) == {"cat"}
    with pytest.raises(VectorsError, match=r"vectors\.txt: line 6: "):
        file.read(["unwanted"])


def test_a_word_may_contain_spaces(file: VectorFile) -> None:
    found = file.read([".", ". . .", "cat"])
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
    found = file.read(["the", "cat", "dog"])
    np.testing.assert_array_equal(found["dog"], np.float32([4, 5, 6]))
    np.testing.assert_array_equal(found["the"], np.float32([0.1, -0.2, 3e-4]))


def test_compressed_files_are_read_like_plain_files(tmp_path: Path, file: VectorFile) -> None:
    packed, archive = tmp_path / "v.txt.gz", tmp_path / "v.zip"
    packed.write_bytes(gzip.compress(ROWS.encode()))
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("v.txt", ROWS)
    expected = file.read(["the", "queen"])
    for path in (packed, archive):
        found = VectorFile(path).read(["the", "queen"])
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
        ("torn.gz", gzip.compress(ROWS.encode() * 9, mtime=0)[:-9], r"torn\.gz: not a valid gz file"),
    ],
)
def test_an_invalid_file_is_an_error_that_names_the_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(VectorsError, match=message):
        VectorFile(path).read(["the", "cat", "dog"])


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


@pytest.mark.parametrize("header", [False, True])
def test_written_vectors_are_read_back_exactly(tmp_path: Path, rng: np.random.Generator, header: bool) -> None:
    tokens = ["<unk>", "\n", " ", "a", "é", "two words", "\t", "\r", "   ", "\u3000", "\\", "7", "\x85", "x\u2028"]
    vectors = rng.standard_normal((len(tokens), 4)).astype(np.float32) * np.float32(1e-3)
    out = io.StringIO()
    write_vectors(out, tokens, vectors, header=header)
    path = tmp_path / "v.txt"
    path.write_text(out.getvalue(), encoding="utf-8")
    expected = dict(zip(map(name_in_files, tokens), vectors, strict=True))
    found = VectorFile(path).read(expected)
    assert found.keys() == expected.keys()
    assert all((found[name] == vector).all() for name, vector in expected.items())
    strict = read_strictly(path, header=header)
    assert strict.keys() == expected.keys()
    assert all((strict[name] == vector).all() for name, vector in expected.items())
    embedding, _ = embed_vocabulary(VectorFile(path), tokens, np.ones(len(tokens), dtype=int), seed=1)
    np.testing.assert_array_equal(embedding, vectors)


def test_a_file_without_newlines_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.text.packed_files.BLOCK_BYTES", 8)
    monkeypatch.setattr("charlm.text.vector_files.MAX_LINE_BYTES", 64)
    path = tmp_path / "weights.bin"
    path.write_bytes(b"x" * 1000)
    with pytest.raises(VectorsError, match="a line of more than 64 bytes"):
        VectorFile(path)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4), min_size=1, unique=True))
def test_every_token_is_one_word_of_a_line(tokens: list[str]) -> None:
    """Two tokens of newlines, or a token that looks like an escape sequence, may share a name; no others do."""
    out = io.StringIO()
    write_vectors(out, tokens, np.ones((len(tokens), 2), dtype=np.float32))
    lines = out.getvalue().encode().split(b"\n")[:-1]
    assert len(lines) == len(tokens)
    for line in lines:
        word, *numbers = line.decode().split()
        assert numbers == ["1.0", "1.0"]
        assert word


def test_gensim_reads_written_vectors(tmp_path: Path, rng: np.random.Generator) -> None:
    keyed_vectors = pytest.importorskip("gensim.models").KeyedVectors
    tokens = ["<unk>", "\n", " ", "  ", "\t", "é", "word"]
    vectors = rng.standard_normal((len(tokens), 5)).astype(np.float32)
    for header in (False, True):
        with (tmp_path / "v.txt").open("w", encoding="utf-8") as out:
            write_vectors(out, tokens, vectors, header=header)
        found = keyed_vectors.load_word2vec_format(str(tmp_path / "v.txt"), no_header=not header)
        assert found.index_to_key == [name_in_files(token) for token in tokens]
        np.testing.assert_array_equal(found.vectors, vectors)
