"""Deals a text to parallel streams, and makes short texts equally long.

The text is a ring. B streams start at places a B-th of it apart and each reads on forever, T tokens an update,
so that every stream's state can be carried from update to update without a break. What a batch holds depends on
the number of the update alone, which makes resuming exact, and since T rarely divides the ring, the cuts fall
elsewhere in every epoch.

Shapes: B streams, T tokens.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from charlm.tokenizer import Ids


class StreamBatches:
    """The batches of a text.

    Args:
        ids: The text, (N,).
        batch_size: B.
        seq_len: T.
        reset_prob: The chance that a stream begins an update from the zero state. Without resets a model comes to
            rely on a state that is never zero, and fails where a text begins.
        seed: Of where the streams start, and of the resets.
    """

    def __init__(self, ids: Ids, batch_size: int, seq_len: int, *, reset_prob: float = 0.0, seed: int = 0) -> None:
        self._ids = ids
        self._seq_len = seq_len
        self._reset_prob = reset_prob
        self._seed = seed
        first = np.random.default_rng(seed).integers(len(ids))
        self._starts = (first + np.arange(batch_size) * len(ids) // batch_size) % len(ids)
        self._offsets = np.arange(seq_len + 1)

    @property
    def tokens_per_step(self) -> int:
        """B * T."""
        return len(self._starts) * self._seq_len

    @property
    def steps_per_epoch(self) -> float:
        """Updates in which as many tokens are read as the text has."""
        return len(self._ids) / self.tokens_per_step

    def inputs_and_targets(self, step: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The tokens that update `step` reads, and those that follow each of them, (B, T)."""
        places = (self._starts[:, None] + step * self._seq_len + self._offsets) % len(self._ids)
        window = self._ids[places].astype(np.int64)
        return window[:, :-1], window[:, 1:]

    def resets(self, step: int) -> npt.NDArray[np.bool_]:
        """The streams that begin update `step` from the zero state, (B,); all do at the first."""
        if step == 0:
            return np.ones(len(self._starts), dtype=np.bool_)
        return np.random.default_rng((self._seed, step)).random(len(self._starts)) < self._reset_prob


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
