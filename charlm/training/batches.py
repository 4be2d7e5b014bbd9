"""Deals a text to parallel streams, and makes short texts equally long.

The text, with a start token before it, is a ring: its end and its beginning meet at a start, so that a model
learns how a text begins. B streams start at places a B-th of it apart and each reads on forever, T tokens an update,
so that every stream's state can be carried from update to update without a break. What a batch holds depends on
the number of the update alone, which makes resuming exact, and since T rarely divides the ring, the cuts fall
elsewhere in every epoch.

Shapes: B streams, T tokens.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from charlm.text.tokenizer import Ids


class StreamBatches:
    """The batches of a text.

    Args:
        ids: The text, (N,); it may lie in a file, of which only what is asked for is read.
        batch_size: B.
        seq_len: T.
        start_id: The start token.
        reset_prob: The chance that a stream begins an update from the zero state. Without resets a model comes to
            rely on a state that is never zero, and fails where a text begins.
        seed: Of where the streams start, and of the resets.
        workers: Processes among which the streams are dealt: this one has its own B of `workers` * B.
        rank: This process's number.
    """

    def __init__(
        self,
        ids: Ids,
        batch_size: int,
        seq_len: int,
        *,
        start_id: int,
        reset_prob: float = 0.0,
        seed: int = 0,
        workers: int = 1,
        rank: int = 0,
    ) -> None:
        self._ids = ids
        self._ring = len(ids) + 1
        self._start_id = start_id
        self._seq_len = seq_len
        self._reset_prob = reset_prob
        self._seed = seed
        self._streams = batch_size * workers
        self._own = slice(rank * batch_size, (rank + 1) * batch_size)
        first = np.random.default_rng(seed).integers(self._ring)
        starts = (first + np.arange(self._streams) * self._ring // self._streams) % self._ring
        self._starts = starts[self._own]
        self._offsets = np.arange(seq_len + 1)

    @property
    def tokens_per_step(self) -> int:
        """B * T, of all processes together."""
        return self._streams * self._seq_len

    @property
    def steps_per_epoch(self) -> float:
        """Updates in which as many tokens are read as the text has."""
        return self._ring / self.tokens_per_step

    def inputs_and_targets(self, step: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The tokens that update `step` reads, and those that follow each of them, (B, T)."""
        places = (self._starts[:, None] + step * self._seq_len + self._offsets) % self._ring
        window = self._ids[np.maximum(places - 1, 0)].astype(np.int64)
        window[places == 0] = self._start_id
        return window[:, :-1], window[:, 1:]

    def resets(self, step: int) -> npt.NDArray[np.bool_]:
        """The streams that begin update `step` from the zero state, (B,); all do at the first."""
        if step == 0:
            return np.ones(len(self._starts), dtype=np.bool_)
        drawn = np.random.default_rng((self._seed, step)).random(self._streams)[self._own]
        return drawn < self._reset_prob


def pad_front(sequences: Sequence[Sequence[int]], length: int, pad_id: int = 0) -> npt.NDArray[np.int64]:
    """Make sequences equally long: what is short is filled in front, what is long is cut there.

    In front, so that a model that answers at the end has just read the last real tokens.

    Args:
        sequences: Token ids, each sequence of any length.
        length: T, the length to make of each.
        pad_id: What to fill with.

    Returns:
        (len(sequences), T), int64.
    """
    padded = np.full((len(sequences), length), pad_id, dtype=np.int64)
    for row, sequence in zip(padded, sequences, strict=True):
        kept = list(sequence)[max(0, len(sequence) - length) :]
        row[length - len(kept) :] = kept
    return padded
