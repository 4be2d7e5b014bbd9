"""Search for words whose vectors are similar, in a model's embedding or in a file of word vectors.

The similarity of two words is the cosine of the angle between their vectors.

Shapes: V vocabulary, E embedding, Q queries.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Protocol

import numpy as np

from charlm.errors import VectorsError
from charlm.text.glove import NEWLINE_IN_FILES, name_in_files
from charlm.text.vector_files import VectorFile, Vectors
from charlm.text.words import LINE_END_WORD, NEWLINE

Neighbours = list[tuple[str, float]]
"""Pairs of word and cosine, by falling cosine."""


class VectorSource(Protocol):
    """Interface of what can be searched: the embedding of a model, or a file."""

    def find(self, words: Iterable[str]) -> Mapping[str, tuple[str, Vectors]]:
        """Return for each word the form that was found and its vector, (E,).

        Raises:
            VectorsError: If a word is missing.
        """
        ...

    def blocks(self) -> Iterator[tuple[Sequence[str], Vectors]]:
        """Yield words and their vectors, (number of words, E), block by block."""
        ...


class ModelVectors:
    """Embedding of a model.

    Args:
        name: Name of the model for messages.
        tokens: The vocabulary.
        embedding: Vectors of its tokens, (V, E).
        fold: Change of a text before the model reads it, such as the conversion to lower case.
    """

    def __init__(
        self, name: str, tokens: Sequence[str], embedding: Vectors, *, fold: Callable[[str], str] = str
    ) -> None:
        self._name = name
        self._tokens = tokens
        self._embedding = embedding
        self._fold = fold

    def find(self, words: Iterable[str]) -> Mapping[str, tuple[str, Vectors]]:
        """Return for each word its token and the vector. A newline is the token of a newline, whatever its name."""
        indices = {token: index for index, token in enumerate(self._tokens)}
        found = {}
        for word in words:
            token = LINE_END_WORD if word == NEWLINE and NEWLINE not in indices else word
            token = token if token in indices else self._fold(token)
            if token not in indices:
                raise VectorsError(f"{word!r}: not in the vocabulary of {self._name}")
            found[word] = token, self._embedding[indices[token]]
        return found

    def blocks(self) -> Iterator[tuple[Sequence[str], Vectors]]:
        """Yield the whole vocabulary."""
        yield self._tokens, self._embedding


class FileVectors:
    """File of word vectors.

    Args:
        file: The file.
    """

    def __init__(self, file: VectorFile) -> None:
        self._file = file

    def find(self, words: Iterable[str]) -> Mapping[str, tuple[str, Vectors]]:
        """Return for each word its name in the file, or else that of its lower-case form, and its vector."""
        names = {word: name_in_files(word) for word in words}
        vectors = self._file.read({form for name in names.values() for form in (name, name.lower())})
        found = {}
        for word, name in names.items():
            form = name if name in vectors else name.lower()
            if form not in vectors:
                raise VectorsError(f"{word!r}: not in {self._file.path}")
            found[word] = form, vectors[form]
        return found

    def blocks(self) -> Iterator[tuple[Sequence[str], Vectors]]:
        """Read the file block by block."""
        return self._file.blocks()


def nearest_words(source: VectorSource, words: Sequence[str], top: int) -> list[Neighbours]:
    """Return for each word the nearest other words.

    Args:
        source: What is searched.
        words: The words.
        top: Maximum number of neighbours of a word.

    Raises:
        VectorsError: If a word is missing, or a file is damaged.
    """
    found = source.find(words)
    queries = np.stack([found[word][1] for word in words])
    return _search(source, queries, [{found[word][0]} for word in words], top)


def similarities(source: VectorSource, words: Sequence[str]) -> list[tuple[str, str, float]]:
    """Return the cosine of each pair of words: the two words and the number.

    Raises:
        VectorsError: If a word is missing, or a file is damaged.
    """
    found = source.find(words)
    return [
        (first, second, float(_normalised(found[first][1]) @ _normalised(found[second][1])))
        for first, second in combinations(words, 2)
    ]


def analogous_words(source: VectorSource, first: str, second: str, third: str, top: int) -> Neighbours:
    """Return words D such that `first` is to `second` as `third` is to D.

    They are the nearest words to b - a + c, where a, b and c are the vectors of the three words, divided by their
    lengths. The three words themselves are excluded.

    Raises:
        VectorsError: If a word is missing, or a file is damaged.

    Source:
        Mikolov, Yih and Zweig (2013), Linguistic Regularities in Continuous Space Word Representations.
    """
    found = source.find((first, second, third))
    a, b, c = (_normalised(found[word][1]) for word in (first, second, third))
    (neighbours,) = _search(source, (b - a + c)[None], [{form for form, _ in found.values()}], top)
    return neighbours


def nearest(
    words: Sequence[str], vectors: Vectors, vector: Vectors, top: int, *, leave_out: Collection[str]
) -> Neighbours:
    """Return the words whose vectors have the largest cosine with a vector.

    Args:
        words: The vocabulary.
        vectors: Their vectors, (V, E).
        vector: The vector to compare with, (E,).
        top: Maximum number of words.
        leave_out: Words that are not returned, such as the word of `vector`.
    """
    return _nearest_rows(words, _cosines(vectors, vector[None])[:, 0], top, leave_out)


def _search(source: VectorSource, queries: Vectors, leave_out: Sequence[Collection[str]], top: int) -> list[Neighbours]:
    """Return the nearest words to each of Q vectors, (Q, E), in one pass over the source."""
    best: list[Neighbours] = [[] for _ in queries]
    for words, vectors in source.blocks():
        cosines = _cosines(vectors, queries)
        for index, found in enumerate(best):
            found += _nearest_rows(words, cosines[:, index], top, leave_out[index])
            found.sort(key=lambda pair: -pair[1])
            del found[top:]
    return best


def _cosines(vectors: Vectors, queries: Vectors) -> Vectors:
    """Return the cosines between V vectors, (V, E), and Q queries, (Q, E): (V, Q), float32."""
    lengths = np.linalg.norm(vectors, axis=1)[:, None] * np.linalg.norm(queries, axis=1)
    cosines: Vectors = (vectors @ queries.T) / np.maximum(lengths, np.finfo(np.float32).tiny)
    return cosines


def _nearest_rows(words: Sequence[str], cosines: Vectors, top: int, leave_out: Collection[str]) -> Neighbours:
    """Return the words with the largest cosines, (V,)."""
    order = np.argsort(-cosines, kind="stable")[: top + len(leave_out)]
    return [(words[index], float(cosines[index])) for index in order if words[index] not in leave_out][:top]


def _normalised(vector: Vectors) -> Vectors:
    """Return a vector divided by its length, (E,)."""
    normalised: Vectors = vector / max(float(np.linalg.norm(vector)), float(np.finfo(np.float32).tiny))
    return normalised


def shown_token(token: str) -> str:
    r"""Return a token of a vocabulary in visible characters: a newline as `\n`, other whitespace by its code.

    Example:
        >>> shown_token("\n") == r"\n", shown_token(" ") == r"\u0020"
        (True, True)
    """
    name = name_in_files(token)
    return r"\n" if name == NEWLINE_IN_FILES else name
