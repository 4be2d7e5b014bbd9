from pathlib import Path

import numpy as np
import pytest

from charlm.errors import VectorsError
from charlm.text import vector_files
from charlm.text.vector_files import VectorFile
from charlm.text.vector_search import (
    FileVectors,
    ModelVectors,
    VectorSource,
    analogous_words,
    nearest,
    nearest_words,
    similarities,
)

WORDS = [f"w{number}" for number in range(30)]


@pytest.fixture
def table(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return dict(zip(WORDS, rng.standard_normal((30, 5)).astype(np.float32), strict=True))


@pytest.fixture(params=["model", "file", "small blocks"])
def source(
    request: pytest.FixtureRequest, table: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> VectorSource:
    if request.param == "model":
        return ModelVectors("m", WORDS, np.array(list(table.values())))
    if request.param == "small blocks":
        monkeypatch.setattr(vector_files, "BLOCK_ROWS", 4)
    lines = (f"{word} {' '.join(map(str, row))}\n" for word, row in table.items())
    Path("v.txt").write_text("".join(lines), encoding="utf-8")
    return FileVectors(VectorFile(Path("v.txt")))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def ranking(table: dict[str, np.ndarray], vector: np.ndarray, without: set[str]) -> list[tuple[str, float]]:
    pairs = [(word, cosine(row, vector)) for word, row in table.items() if word not in without]
    return sorted(pairs, key=lambda pair: -pair[1])


def same(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> bool:
    return [word for word, _ in found] == [word for word, _ in expected] and [c for _, c in found] == pytest.approx(
        [c for _, c in expected], abs=1e-6
    )


def test_nearest_words_have_the_largest_cosines(source: VectorSource, table: dict[str, np.ndarray]) -> None:
    for word, found in zip(("w3", "w7"), nearest_words(source, ["w3", "w7"], 4), strict=True):
        assert same(found, ranking(table, table[word], {word})[:4])
    assert same(
        nearest(WORDS, np.array(list(table.values())), table["w3"], 4, leave_out={"w3"}),
        ranking(table, table["w3"], {"w3"})[:4],
    )


def test_similarities_are_the_cosines_of_all_pairs(source: VectorSource, table: dict[str, np.ndarray]) -> None:
    found = similarities(source, ["w1", "w2", "w3"])
    assert [pair[:2] for pair in found] == [("w1", "w2"), ("w1", "w3"), ("w2", "w3")]
    assert [pair[2] for pair in found] == pytest.approx([cosine(table[a], table[b]) for a, b, _ in found])


def test_analogies_are_nearest_to_the_sum_of_normalised_vectors(
    source: VectorSource, table: dict[str, np.ndarray]
) -> None:
    a, b, c = (table[word] / np.linalg.norm(table[word]) for word in ("w1", "w2", "w3"))
    found = analogous_words(source, "w1", "w2", "w3", 5)
    assert same(found, ranking(table, b - a + c, {"w1", "w2", "w3"})[:5])


def test_gensim_finds_the_same(source: VectorSource, table: dict[str, np.ndarray]) -> None:
    keyed_vectors = pytest.importorskip("gensim.models").KeyedVectors(5)
    keyed_vectors.add_vectors(WORDS, list(table.values()))
    assert same(nearest_words(source, ["w3"], 4)[0], keyed_vectors.most_similar("w3", topn=4))
    ((_, _, found),) = similarities(source, ["w1", "w2"])
    assert found == pytest.approx(keyed_vectors.similarity("w1", "w2"), abs=1e-6)
    expected = keyed_vectors.most_similar(positive=["w2", "w3"], negative=["w1"], topn=5)
    assert same(analogous_words(source, "w1", "w2", "w3", 5), expected)


def test_a_known_analogy_is_solved() -> None:
    words = ["man", "woman", "king", "queen", "castle"]
    vectors = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 1], [0, 0, 1]], dtype=np.float32)
    assert analogous_words(ModelVectors("m", words, vectors), "man", "king", "woman", 1)[0][0] == "queen"


def test_missing_words_are_errors_and_files_know_lower_case(source: VectorSource) -> None:
    with pytest.raises(VectorsError, match="'dog': not in"):
        nearest_words(source, ["w1", "dog"], 3)
    if isinstance(source, FileVectors):
        assert nearest_words(source, ["W1"], 3) == nearest_words(source, ["w1"], 3)


def test_a_newline_is_found_under_its_name_in_each_source() -> None:
    Path("v.txt").write_text("</s> 1 2\na 2 1\nb 1 3\n", encoding="utf-8")
    table = np.array([[1, 2], [2, 1], [1, 3]], dtype=np.float32)
    expected = [("b", pytest.approx(cosine(table[0], table[2]))), ("a", pytest.approx(cosine(table[0], table[1])))]
    sources = (
        FileVectors(VectorFile(Path("v.txt"))),
        ModelVectors("m", ["\n", "a", "b"], table),
        ModelVectors("m", ["<eos>", "a", "b"], table),
    )
    assert [nearest_words(source, ["\n"], 5) for source in sources] == [[expected]] * 3


def test_words_are_folded_as_the_model_folds_text(table: dict[str, np.ndarray]) -> None:
    vectors = np.array(list(table.values()))
    source = ModelVectors("m", [*WORDS[:-1], "Kept"], vectors, fold=str.lower)
    assert source.find(["W3"])["W3"][0] == "w3"
    assert source.find(["Kept"])["Kept"][0] == "Kept"
    with pytest.raises(VectorsError, match="'X'"):
        source.find(["X"])
