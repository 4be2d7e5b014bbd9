"""Batches of a text that is read in parallel streams, and padding of short sequences.

The text, with a start token before it, is read as a ring: its beginning follows its end, so that a model learns to
predict the beginning of a text. B streams start at evenly spaced positions of the ring. Each reads T tokens per update
and continues at the next update, so that its state can be carried over. A batch depends only on the number of its
update, so that a resumed training reads the same batches. Because T rarely divides the length of the ring, the
sequences start at other positions in every epoch.

Shapes: N length of the text, B streams, T tokens per stream and update.
"""

import copy
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from charlm.text.tokenizer import Ids


class Batches(Protocol):
    """Interface of the batches of a training; see `StreamBatches` and `charlm.training.items.ItemBatches`.

    Attributes:
        num_targets: Number by which the sum of the losses of an update is divided; None for a mean over its tokens.
    """

    @property
    def num_targets(self) -> float | None: ...  # noqa: D102 - an attribute

    @property
    def tokens_per_step(self) -> float: ...  # noqa: D102 - as in the classes

    @property
    def steps_per_epoch(self) -> float: ...  # noqa: D102

    def inputs_and_targets(self, step: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]: ...  # noqa: D102

    def resets(self, step: int) -> npt.NDArray[np.bool_]: ...  # noqa: D102


class StreamBatches:
    """Batches of a text.

    Args:
        ids: The text, (N,). It may be memory-mapped, so that only the tokens of a batch are read.
        batch_size: B, number of streams.
        seq_len: T, number of tokens per stream and update.
        start_id: Start token.
        reset_prob: Probability that a stream starts an update from the zero state. Without resets, a model would never
            read from the zero state, and would fail at the beginning of a text.
        seed: Seed of the positions where streams start, and of the resets.
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
    ) -> None:
        self._ids = ids
        self._ring = len(ids) + 1
        self._start_id = start_id
        self._batch_size = batch_size
        self._seq_len = seq_len
        self._reset_prob = reset_prob
        self._seed = seed
        self._own = slice(0, batch_size)
        first = np.random.default_rng(seed).integers(self._ring)
        self._starts = (first + np.arange(batch_size) * self._ring // batch_size) % self._ring
        self._offsets = np.arange(seq_len + 1)
        self.num_targets: float | None = None

    def shard(self, rank: int, count: int) -> "StreamBatches":
        """Return the part of these batches for one of `count` processes: B / `count` of the streams."""
        part, size = copy.copy(self), self._batch_size // count
        part._own = slice(rank * size, (rank + 1) * size)
        return part

    @property
    def tokens_per_step(self) -> int:
        """B * T, number of tokens per update, of all processes together."""
        return self._batch_size * self._seq_len

    @property
    def steps_per_epoch(self) -> float:
        """Number of updates that read as many tokens as the text has."""
        return self._ring / self.tokens_per_step

    def inputs_and_targets(self, step: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the tokens that an update reads, and the token after each of them, (B, T) each.

        Args:
            step: Number of the update, from 0.
        """
        places = (self._starts[self._own, None] + step * self._seq_len + self._offsets) % self._ring
        window = self._ids[np.maximum(places - 1, 0)].astype(np.int64)
        window[places == 0] = self._start_id
        return window[:, :-1], window[:, 1:]

    def resets(self, step: int) -> npt.NDArray[np.bool_]:
        """Return which streams start an update from the zero state, (B,), bool. At the first update, all do."""
        if step == 0:
            return np.ones(len(self._starts[self._own]), dtype=np.bool_)
        drawn = np.random.default_rng((self._seed, step)).random(self._batch_size)[self._own]
        return drawn < self._reset_prob


def pad_front(sequences: Sequence[Sequence[int]], length: int, pad_id: int = 0) -> npt.NDArray[np.int64]:
    """Pad sequences at the front to the same length, and cut longer ones there.

    The last tokens of each sequence are then those that a model reads last.

    Args:
        sequences: Token ids.
        length: T, length of the result.
        pad_id: Token for the padding.

    Returns:
        (number of sequences, T), int64.
    """
    padded = np.full((len(sequences), length), pad_id, dtype=np.int64)
    for row, sequence in zip(padded, sequences, strict=True):
        kept = list(sequence)[max(0, len(sequence) - length) :]
        row[length - len(kept) :] = kept
    return padded
