"""Detection of runs of characters that a text has copied from the training text.

A training stores its text beside the model, up to `MAX_STORED_CHARS` characters, compressed to about a third of its
size. The hashes of all runs of N characters are computed from this text on demand, for any N, in a tenth of a second
per million characters. A copied run is always found. Another run is reported as a copy only if its hash equals the hash
of a run of the training text; the probability is 1 in 10^12 per run for a training text of ten million characters.
"""

import gzip
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from charlm.config import MAX_NOVELTY_CHARS
from charlm.errors import ConfigError, NoveltyError
from charlm.text.characters import code_points
from charlm.text.ids import Ids
from charlm.text.tokenizer import Tokenizer

TEXT_FILE = "text.gz"
"""Name of the file with the training text in the folder of a run."""

MAX_STORED_CHARS = 2**25
"""Maximum number of characters stored. A search for copies takes 8 bytes of memory per character."""

CHUNK_CHARS = 2**20
"""Number of characters (or tokens, when text is stored) that are processed at a time, to limit memory."""

HASH_BASE = 0x9E3779B97F4A7C15
"""Base of the polynomial hash modulo 2^64: 2^64 divided by the golden ratio, an odd number with well mixed bits."""

Points = npt.NDArray[np.uint32]
Hashes = npt.NDArray[np.uint64]


def store_training_text(folder: Path, tokenizer: Tokenizer, ids: Ids) -> None:
    """Store the training text in the folder of a run, up to `MAX_STORED_CHARS` characters.

    Args:
        folder: Folder of the run.
        tokenizer: Tokenizer of the model.
        ids: The text, (number of tokens,).

    Raises:
        NoveltyError: If the file cannot be written.
    """
    path = folder / TEXT_FILE
    unfinished = folder / f".{TEXT_FILE}.tmp"
    chars_left = MAX_STORED_CHARS
    try:
        with gzip.open(unfinished, "wb", compresslevel=3) as file:
            for start in range(0, len(ids), CHUNK_CHARS):
                text = tokenizer.decode(ids[start : start + CHUNK_CHARS])[:chars_left]
                file.write(text.encode("utf-8", "surrogatepass"))
                chars_left -= len(text)
                if chars_left == 0:
                    break
        os.replace(unfinished, path)
    except OSError as error:
        raise NoveltyError(f"{path}: cannot be written ({error.strerror}); check permissions and free space") from None


def load_training_text(model: Path) -> str:
    """Return the training text that is stored in the folder of a model file.

    Raises:
        NoveltyError: If the training text is missing or damaged.
    """
    path = model.parent / TEXT_FILE
    try:
        with gzip.open(path) as file:
            return file.read().decode("utf-8", "surrogatepass")
    except FileNotFoundError:
        raise NoveltyError(
            f"{path}: the training text is not stored with this model; set corpus to the text to compare with",
            fields=["corpus"],
        ) from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise NoveltyError(
            f"{path}: damaged ({error}); set corpus to the text to compare with", fields=["corpus"]
        ) from None


def hash_runs(points: Points, length: int) -> Hashes:
    """Return the hash of every run of `length` characters.

    The hashes are the same as those of `hash_run`. They are composed of the hashes of runs of 1, 2, 4, ... characters,
    which takes log2(length) passes over the text.

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


def hash_run(run: str) -> int:
    """Return the hash of one short run."""
    value = 0
    for char in run:
        value = (value * HASH_BASE + ord(char) + 1) & (2**64 - 1)
    return value


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

    Example:
        >>> TrainingText("to be or not").longest_copy("not to be").text
        'to be'
    """

    def __init__(self, text: str) -> None:
        self._points: Points = code_points(text)

    def copied_runs(self, text: str, length: int) -> npt.NDArray[np.bool_]:
        """Return which runs of `length` characters of a text are in the training text.

        Returns:
            True for each run that is, (number of characters - length + 1,), bool.
        """
        hashes, indices = np.unique(hash_runs(code_points(text), length), return_inverse=True)
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
        points = code_points(text)
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
        position = int(positions[0]) if longest else 0
        return CopiedRun(
            text=text[position : position + longest], position=position, training_position=training_position
        )

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

    Attributes:
        length: As given.

    Raises:
        ConfigError: If the length is out of range.
    """

    def __init__(self, text: str, length: int) -> None:
        if not 1 <= length <= MAX_NOVELTY_CHARS:
            raise ConfigError(f"novel {length}: must be from 1 to {MAX_NOVELTY_CHARS}", fields=["novel"])
        self.length = length
        self._hashes: Hashes = hash_runs(code_points(text), length)
        self._hashes.sort()

    def repeats(self, preceding: str, piece: str) -> bool:
        """Return True if the training text contains a run of `length` characters that ends within `piece`.

        Args:
            preceding: The text before the piece.
            piece: Text that would be appended.
        """
        context = preceding[max(0, len(preceding) - self.length + 1) :] + piece
        for start in range(len(context) - self.length + 1):
            value = np.uint64(hash_run(context[start : start + self.length]))
            index = self._hashes.searchsorted(value)
            if index < len(self._hashes) and self._hashes[index] == value:
                return True
        return False
