"""Telling new text from copies of the training text.

A training leaves the text that it learnt from beside the model, compressed: a third of its size, and never more
than `KEPT_CHARS` of it. From that, what is wanted is made when it is wanted: the hashes of all runs of N
characters, for any N, in a tenth of a second for a million characters. A copied run is always found; that a new
one is taken for a copy has a chance of 1 in 10^12 with a text of ten million characters.
"""

import gzip
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from charlm.errors import NoveltyError
from charlm.text.characters import code_points
from charlm.text.ids import Ids
from charlm.text.tokenizer import Tokenizer

TEXT_FILE = "text.gz"
"""The training text's name in a run's folder."""

KEPT_CHARS = 2**25
"""Characters kept at most: looking for copies takes 8 bytes of memory for each."""

LONGEST_GUARDED = 1000
"""Longest run of characters that can be kept from being repeated."""

CHUNK = 2**20
"""Characters handled at a time."""

FACTOR = 0x9E3779B97F4A7C15
"""Base of the polynomial hash modulo 2^64: odd, with its bits well mixed (2^64 over the golden ratio)."""

Points = npt.NDArray[np.uint32]
Hashes = npt.NDArray[np.uint64]


def keep_text(folder: Path, tokenizer: Tokenizer, ids: Ids) -> None:
    """Leave the text that a model learns from in its run's folder, `KEPT_CHARS` of it at most.

    Raises:
        NoveltyError: If it cannot be written.
    """
    path = folder / TEXT_FILE
    unfinished = folder / f".{TEXT_FILE}.tmp"
    left = KEPT_CHARS
    try:
        with gzip.open(unfinished, "wb", compresslevel=3) as file:
            for begin in range(0, len(ids), CHUNK):
                text = tokenizer.decode(ids[begin : begin + CHUNK])[:left]
                file.write(text.encode("utf-8", "surrogatepass"))
                left -= len(text)
                if left == 0:
                    break
        os.replace(unfinished, path)
    except OSError as error:
        raise NoveltyError(f"{path}: cannot be written ({error.strerror})") from None


def kept_text(model: Path) -> str:
    """The training text beside a model file.

    Raises:
        NoveltyError: If there is none, or it is damaged.
    """
    path = model.parent / TEXT_FILE
    try:
        with gzip.open(path) as file:
            return file.read().decode("utf-8", "surrogatepass")
    except FileNotFoundError:
        raise NoveltyError(
            f"{path}: the training text is not kept beside this model; say what to compare with (--corpus FILE)"
        ) from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise NoveltyError(f"{path}: damaged ({error}); say what to compare with (--corpus FILE)") from None


def run_hashes(points: Points, length: int) -> Hashes:
    """The hash of each run of so many characters, (len(points) - length + 1,), in log2(length) passes.

    It is the polynomial `run_hash` has, put together from those of runs of 1, 2, 4, ... characters.
    """
    count = len(points) - length + 1
    if count <= 0:
        return np.zeros(0, dtype=np.uint64)
    part: Hashes = points.astype(np.uint64) + np.uint64(1)
    whole: Hashes = np.zeros(len(points), dtype=np.uint64)
    taken, size = 0, 1
    while True:
        power = np.uint64(pow(FACTOR, size, 2**64))
        if length & size:
            ends = part[taken:]
            whole = whole[: len(ends)] * power + ends
            taken += size
        if taken == length:
            return whole
        part = part[:-size] * power + part[size:]
        size *= 2


def run_hash(run: str) -> int:
    """The hash of one short run."""
    value = 0
    for char in run:
        value = (value * FACTOR + ord(char) + 1) & (2**64 - 1)
    return value


def _scan(training: Points, wanted: Hashes, length: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp]]:
    """Which of some hashes, sorted, are those of runs of the training text, and where; a chunk at a time."""
    found = np.zeros(len(wanted), dtype=bool)
    where = np.zeros(len(wanted), dtype=np.intp)
    for begin in range(0, len(training) - length + 1, CHUNK):
        hashes = run_hashes(training[begin : begin + CHUNK + length - 1], length)
        places = np.minimum(wanted.searchsorted(hashes), len(wanted) - 1)
        hits = np.flatnonzero(wanted[places] == hashes)
        found[places[hits]] = True
        where[places[hits]] = begin + hits
    return found, where


@dataclass(frozen=True, kw_only=True)
class CopiedRun:
    """The longest run of characters that a text has from the training text.

    Attributes:
        text: The run; empty if not one character is shared.
        place: Where it begins in the text, in characters from 0.
        origin: Where it stands in the training text, the last place if there are several.
    """

    text: str
    place: int
    origin: int


class TrainingText:
    """A text that others are compared with.

    Args:
        text: The text.
    """

    def __init__(self, text: str) -> None:
        self._points: Points = code_points(text)

    def copied(self, text: str, length: int) -> npt.NDArray[np.bool_]:
        """Which runs of so many characters of a text stand in the training text, (len(text) - length + 1,)."""
        hashes, back = np.unique(run_hashes(code_points(text), length), return_inverse=True)
        return _scan(self._points, hashes, length)[0][back] if len(hashes) else np.zeros(0, dtype=bool)

    def copied_share(self, text: str, length: int) -> float:
        """The share of a text's runs of so many characters that stand in the training text; NaN if it has none."""
        copied = self.copied(text, length)
        return float(copied.mean()) if len(copied) else float("nan")

    def longest_copy(self, text: str) -> CopiedRun:
        """The longest run of characters that a text has from the training text, its first place if there are several.

        The length is doubled while there are copies, and halved in on the last: only where a shorter run was
        copied can a longer one be.
        """
        points = code_points(text)
        places = np.arange(len(points))
        known, origin, step = 0, 0, 1
        growing = True
        while step:
            length = known + step
            candidates = places[places + length <= len(points)]
            kept, origins = self._copies(points, candidates, length)
            if len(kept):
                known, places, origin = length, kept, int(origins[0])
            growing = growing and len(kept) > 0
            step = step * 2 if growing else step // 2
        start = int(places[0]) if known else 0
        return CopiedRun(text=text[start : start + known], place=start, origin=origin)

    def _copies(
        self, points: Points, places: npt.NDArray[np.intp], length: int
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """The places in a text, among those given, whose runs are copies, and where the originals stand."""
        if not len(places):
            return places, places
        hashes, back = np.unique(run_hashes(points, length)[places], return_inverse=True)
        found, where = _scan(self._points, hashes, length)
        hits = found[back]
        return places[hits], where[back][hits]


class Guard:
    """Tells at each step whether a text would repeat a run of the training text.

    Args:
        text: The training text.
        length: The least number of characters that counts as a repetition, `LONGEST_GUARDED` at most.
    """

    def __init__(self, text: str, length: int) -> None:
        self.length = length
        self._hashes: Hashes = run_hashes(code_points(text), length)
        self._hashes.sort()

    def repeats(self, before: str, piece: str) -> bool:
        """Whether a run that ends in `piece`, which follows `before`, stands in the training text."""
        context = before[max(0, len(before) - self.length + 1) :] + piece
        for begin in range(len(context) - self.length + 1):
            value = np.uint64(run_hash(context[begin : begin + self.length]))
            place = self._hashes.searchsorted(value)
            if place < len(self._hashes) and self._hashes[place] == value:
                return True
        return False
