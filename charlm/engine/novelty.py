"""Detection of runs of characters that a text has copied from the training text.

The hashes of all runs of N characters are computed from the training text on demand, for any N, in a tenth of a second
per million characters. A copied run is always found. Another run is reported as a copy only if its hash equals the hash
of a run of the training text; the probability is 1 in 10^12 per run for a training text of ten million characters.

The texts themselves are compared, not their tokens. For a model that distinguishes less than characters, because it
knows lower case only or ignores runs of whitespace, `Comparison` ignores the same differences.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from charlm.errors import ConfigError
from charlm.sample_config import MAX_NOVELTY_CHARS
from charlm.text.characters import code_points
from charlm.text.folding import Folding
from charlm.text.tokenizer import Tokenizer

CONTEXT_FACTOR = 2
"""Number of preceding characters that `NoveltyFilter` reads, as a multiple of the length of the runs: more than one,
because some of them may be whitespace that does not matter."""

CHUNK_CHARS = 2**20
"""Number of characters that are processed at a time, to limit memory."""

HASH_BASE = 0x9E3779B97F4A7C15
"""Base of the polynomial hash modulo 2^64: 2^64 divided by the golden ratio, an odd number with well mixed bits."""

Points = npt.NDArray[np.uint32]
"""Code points of a text, (number of characters,)."""

Hashes = npt.NDArray[np.uint64]


def hash_runs(points: Points, length: int) -> Hashes:
    """Return the hash of every run of `length` characters.

    They are composed of the hashes of runs of 1, 2, 4, ... characters, which takes log2(length) passes over the text.

    Args:
        points: Code points of the text, (number of characters,).
        length: Length of the runs in characters.

    Returns:
        Hashes, (number of characters - length + 1,); empty if the text is shorter than `length`.
    """
    num_runs = len(points) - length + 1
    if num_runs <= 0:
        return np.zeros(0, dtype=np.uint64)
    power_hashes: Hashes = points.astype(np.uint64) + np.uint64(1)  # of runs of `size` characters, a power of two
    hashes: Hashes = np.zeros(len(points), dtype=np.uint64)  # of runs of `hashed_length` characters
    hashed_length, size = 0, 1
    while True:
        factor = np.uint64(pow(HASH_BASE, size, 2**64))
        if length & size:
            ends = power_hashes[hashed_length:]
            hashes = hashes[: len(ends)] * factor + ends
            hashed_length += size
        if hashed_length == length:
            return hashes
        power_hashes = power_hashes[:-size] * factor + power_hashes[size:]
        size *= 2


def _find_hashes(training: Points, wanted: Hashes, length: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp]]:
    """Search the training text for runs with given hashes, chunk by chunk.

    Args:
        training: Code points of the training text, (number of characters,).
        wanted: Sorted hashes, (N,).
        length: Length of the runs in characters.

    Returns:
        For each hash, whether it was found, (N,), and the position of the last run with this hash, (N,).
    """
    found = np.zeros(len(wanted), dtype=bool)
    positions = np.zeros(len(wanted), dtype=np.intp)
    for start in range(0, len(training) - length + 1, CHUNK_CHARS):
        hashes = hash_runs(training[start : start + CHUNK_CHARS + length - 1], length)
        candidates = np.minimum(wanted.searchsorted(hashes), len(wanted) - 1)
        hits = np.flatnonzero(wanted[candidates] == hashes)
        found[candidates[hits]] = True
        positions[candidates[hits]] = start + hits
    return found, positions


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Differences between two texts that do not matter when they are compared.

    Attributes:
        lowercase: Whether upper and lower case are equal.
        normalize: Unicode normal form in which texts are compared, one of `charlm.text.folding.NORMAL_FORMS`.
        single_spaces: Whether all whitespace between two words of a line is equal, and none counts at the ends of a
            line.
    """

    lowercase: bool = False
    single_spaces: bool = False
    normalize: str = "none"

    @classmethod
    def of_model(cls, tokenizer: Tokenizer) -> "Comparison":
        """Return the differences that a tokenizer does not preserve, so that its model cannot reproduce them."""
        return cls(
            lowercase=tokenizer.folding.lowercase,
            single_spaces=getattr(tokenizer, "split", "") == "whitespace",
            normalize=tokenizer.folding.normalize,
        )

    def apply(self, text: str) -> tuple[Points, npt.NDArray[np.intp] | None]:
        """Return the code points of a text without the differences that do not matter, and where they were.

        Returns:
            Code points, (N,), and the index of each in the text, (N,); None in place of indices that count up from 0.
        """
        text, begins = self._normalized(text)
        if self.lowercase:
            text = text.replace(DOTTED_I, "i").lower()
        points = code_points(text)
        if not self.single_spaces:
            return points, begins
        indices = _indices_of_single_spaces(points)
        points = points[indices]
        points[np.isin(points, BLANKS)] = ord(" ")
        return points, indices if begins is None else begins[indices]

    def _normalized(self, text: str) -> tuple[str, npt.NDArray[np.intp] | None]:
        """Return a text in the normal form, and the index of each of its characters in the text; None if unchanged."""
        folding = Folding(normalize=self.normalize)
        normalized = folding.fold(text)
        if normalized == text:
            return text, None
        return normalized, np.array(folding.original_ends(text, range(len(normalized))), dtype=np.intp)

    def points(self, text: str) -> Points:
        """Return the first result of `apply`."""
        return self.apply(text)[0]


DOTTED_I = "\u0130"
"""The only character whose lower case, an i and a combining dot, has two characters."""

BLANKS = np.array([point for point in range(0x3001) if chr(point).isspace() and chr(point) != "\n"], dtype=np.uint32)
"""Code points of all whitespace except the newline."""


def _indices_of_single_spaces(points: Points) -> npt.NDArray[np.intp]:
    """Return the indices of all characters except blanks beside a blank before them, a newline, or an end."""
    newline, blank = points == ord("\n"), np.isin(points, BLANKS)
    kept = ~blank
    after_word = np.zeros(len(points), dtype=bool)
    after_word[1:] = kept[:-1] & ~newline[:-1]
    firsts = np.flatnonzero(blank & after_word)  # the first blank of each run that follows a word
    others = np.flatnonzero(kept)
    following = others.searchsorted(firsts)
    firsts, following = firsts[following < len(others)], following[following < len(others)]
    kept[firsts[~newline[others[following]]]] = True
    return np.flatnonzero(kept)


@dataclass(frozen=True, kw_only=True)
class CopiedRun:
    """Run of characters that a text and the training text have in common.

    Attributes:
        text: The run; empty if the texts have no character in common.
        position: Index of its first character in the text.
        training_position: Index of its first character in the training text; the last one if there are several.
    """

    text: str
    position: int
    training_position: int


class TrainingText:
    """Training text that other texts are compared with.

    Args:
        text: The training text.
        comparison: Differences that do not matter.

    Example:
        >>> TrainingText("to be or not").longest_copy("not to be").text
        'to be'
    """

    def __init__(self, text: str, comparison: Comparison | None = None) -> None:
        self._comparison = comparison or Comparison()
        self._points, self._indices = self._comparison.apply(text)

    def copied_runs(self, text: str, length: int) -> npt.NDArray[np.bool_]:
        """Return which runs of `length` characters of a text are in the training text.

        Returns:
            True for each run that is, (number of characters - length + 1,), bool.
        """
        hashes, indices = np.unique(hash_runs(self._comparison.points(text), length), return_inverse=True)
        return _find_hashes(self._points, hashes, length)[0][indices] if len(hashes) else np.zeros(0, dtype=bool)

    def copied_share(self, text: str, length: int) -> float:
        """Return the share of a text's runs of `length` characters that are in the training text.

        The share is NaN if the text is shorter than `length`.
        """
        copied = self.copied_runs(text, length)
        return float(copied.mean()) if len(copied) else float("nan")

    def longest_copy(self, text: str) -> CopiedRun:
        """Return the longest run that is in the training text; the first one in the text if there are several.

        This is a binary search for the length: the step is doubled while there are copies, and halved after that. A
        longer run can be copied only at positions where a shorter run is copied, so that only those are searched.
        """
        points, indices = self._comparison.apply(text)
        positions = np.arange(len(points))
        longest, training_position, step = 0, 0, 1
        growing = True
        while step:
            length = longest + step
            candidates = positions[positions + length <= len(points)]
            copied, training_positions = self._copied_at(points, candidates, length)
            if len(copied):
                longest, positions, training_position = length, copied, int(training_positions[0])
            growing = growing and len(copied) > 0
            step = step * 2 if growing else step // 2
        if not longest:
            return CopiedRun(text="", position=0, training_position=0)
        position = int(positions[0])
        begin, last = position, position + longest - 1
        if indices is not None:
            begin, last = int(indices[begin]), int(indices[last])
        if self._indices is not None:
            training_position = int(self._indices[training_position])
        return CopiedRun(text=text[begin : last + 1], position=begin, training_position=training_position)

    def _copied_at(
        self, points: Points, positions: npt.NDArray[np.intp], length: int
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return the positions, out of those given, at which a copied run starts, and where it is in the training text.

        Args:
            points: Code points of the text, (number of characters,).
            positions: Positions to search, (N,).
            length: Length of the runs in characters.
        """
        if not len(positions):
            return positions, positions
        hashes, indices = np.unique(hash_runs(points, length)[positions], return_inverse=True)
        found, training_positions = _find_hashes(self._points, hashes, length)
        copied = found[indices]
        return positions[copied], training_positions[indices][copied]


class NoveltyFilter:
    """Filter that recognises tokens that would make a text repeat a run of the training text.

    Args:
        text: The training text.
        length: Length of the runs that must not be repeated, in characters, up to `MAX_NOVELTY_CHARS`.
        comparison: Differences that do not matter.

    Attributes:
        length: As given.

    Raises:
        ConfigError: If the length is out of range.
    """

    def __init__(self, text: str, length: int, comparison: Comparison | None = None) -> None:
        if not 1 <= length <= MAX_NOVELTY_CHARS:
            raise ConfigError(f"novel {length}: must be from 1 to {MAX_NOVELTY_CHARS}", fields=["novel"])
        self.length = length
        self._comparison = comparison or Comparison()
        self._hashes: Hashes = hash_runs(self._comparison.points(text), length)
        self._hashes.sort()

    def repeats(self, preceding: str, piece: str) -> bool:
        """Return True if the training text contains a run of `length` characters that ends within `piece`.

        Args:
            preceding: The text before the piece.
            piece: Text that would be appended.
        """
        preceding = preceding[-CONTEXT_FACTOR * self.length :]
        num_before = len(self._comparison.points(preceding))
        points = self._comparison.points(preceding + piece)
        hashes = hash_runs(points[max(0, num_before - self.length + 1) :], self.length)
        indices = self._hashes.searchsorted(hashes)
        found = indices < len(self._hashes)
        return bool((self._hashes[indices[found]] == hashes[found]).any())
