"""Word vectors as the embedding of a vocabulary, and the embedding of a vocabulary as a file of word vectors.

Shapes: V vocabulary, E embedding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from charlm.errors import VectorsError
from charlm.text.vector_files import VectorFile, Vectors
from charlm.text.words import JOIN, LINE_END_WORD, NEWLINE, UNKNOWN_WORD

NEWLINE_IN_FILES = "</s>"
"""Word that represents a newline, as in word2vec's files. A newline itself cannot be a word in such a file."""

MAX_MISSING_SHOWN = 10
"""Maximum number of missing words that `Coverage` names."""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Share of a vocabulary for which a file has word vectors.

    Attributes:
        file: Name of the file.
        dim: E.
        types: Number of words in the vocabulary.
        types_found: Number of words that have a vector.
        types_in_lower_case: Number of words whose vector is that of their lower-case form.
        tokens: Number of words in the text.
        tokens_found: Number of words in the text that have a vector.
        missing: The most frequent words without a vector.
    """

    file: str
    dim: int
    types: int
    types_found: int
    types_in_lower_case: int
    tokens: int
    tokens_found: int
    missing: list[str]

    def __str__(self) -> str:
        missing = f"; the most frequent not found: {' '.join(self.missing)}" if self.missing else ""
        return (
            f"{self.file}: {self.types_found:,} of {self.types:,} words found "
            f"({self.types_found / max(1, self.types):.1%}; {self.types_in_lower_case:,} of them in lower case), "
            f"{self.tokens_found / max(1, self.tokens):.1%} of the running words{missing}"
        )


def embed_vocabulary(
    file: VectorFile, tokens: Sequence[str], counts: npt.NDArray[np.integer[Any]], *, seed: int
) -> tuple[Vectors, Coverage]:
    """Return the embedding of a vocabulary, taken from a file of word vectors.

    A word that is not in the file has the vector of its lower-case form. If that is not in the file either, its vector
    is drawn from a normal distribution with the mean and the standard deviation of each component of the vectors found.

    Args:
        file: The file of word vectors.
        tokens: The vocabulary, beginning with the unknown token.
        counts: Number of occurrences of each token in the text, (V,).
        seed: Seed of the vectors that are drawn.

    Returns:
        The embedding, (V, E), float32, and its coverage.

    Raises:
        VectorsError: If the file is damaged, or contains no word of the vocabulary.
    """
    names = [name_in_files(token) for token in tokens]
    known = file.read({form for name in names for form in (name, name.lower())})
    exact = np.array([name in known for name in names])
    in_lower_case = np.array([name.lower() in known for name in names]) & ~exact
    found = exact | in_lower_case
    if not found.any():
        raise VectorsError(
            f"{file.path}: none of the {len(tokens):,} words of the vocabulary is in this file; give word vectors for "
            "the language of the text"
        )
    vectors = np.array([known.get(name, known.get(name.lower())) for name in np.array(names)[found]])
    drawn = np.random.default_rng(seed).standard_normal((len(tokens), file.dim))
    embedding: Vectors = (vectors.mean(axis=0) + vectors.std(axis=0) * drawn).astype(np.float32)
    embedding[found] = vectors
    return embedding, _coverage(file, tokens, counts, found, in_lower_case)


def _coverage(
    file: VectorFile,
    tokens: Sequence[str],
    counts: npt.NDArray[np.integer[Any]],
    found: npt.NDArray[np.bool_],
    in_lower_case: npt.NDArray[np.bool_],
) -> Coverage:
    """Return the coverage of the words of a vocabulary, without its special tokens and whitespace."""
    special = (UNKNOWN_WORD, LINE_END_WORD, JOIN)
    is_word = np.array([not token.isspace() and token not in special for token in tokens])
    missing = np.flatnonzero(is_word & ~found)
    most_frequent = missing[np.argsort(-counts[missing], kind="stable")][:MAX_MISSING_SHOWN]
    return Coverage(
        file=str(file.path),
        dim=file.dim,
        types=int(is_word.sum()),
        types_found=int((is_word & found).sum()),
        types_in_lower_case=int((is_word & in_lower_case).sum()),
        tokens=int(counts[is_word].sum()),
        tokens_found=int(counts[is_word & found].sum()),
        missing=[tokens[index] for index in most_frequent],
    )


def vector_lines(tokens: Sequence[str], vectors: Vectors, *, header: bool = False) -> Iterator[str]:
    """Yield the lines of a file of vectors, (V, E), in GloVe's format, or with a header in word2vec's text format.

    Each number is written with the fewest digits from which the same float32 is read.
    """
    if header:
        yield f"{len(tokens)} {vectors.shape[1]}\n"
    for token, vector in zip(tokens, vectors, strict=True):
        yield f"{name_in_files(token)} {' '.join(map(str, vector))}\n"


def write_vectors(out: TextIO, tokens: Sequence[str], vectors: Vectors, *, header: bool = False) -> None:
    """Write vectors, (V, E), as `vector_lines` gives them."""
    out.writelines(vector_lines(tokens, vectors, header=header))


def name_in_files(token: str) -> str:
    r"""Return the word that represents a token in a file of word vectors.

    A newline is `</s>`, as in word2vec's files. Other whitespace is written as an escape sequence, because readers of
    such files take it for the end of the word.

    Example:
        >>> name_in_files("\n"), name_in_files(" "), name_in_files("word")
        ('</s>', '\\u0020', 'word')
    """
    if token in (NEWLINE, LINE_END_WORD):
        return NEWLINE_IN_FILES
    return "".join(rf"\u{ord(char):04x}" if char.isspace() else char for char in token)
