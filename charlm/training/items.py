"""Items of a list in memory, and their batches.

Every item is read from the zero state after the start token, as in scoring and sampling. A batch has one item per row.
Shorter items are padded, and the targets of the padding are `IGNORED`.

Shapes: N items, B rows, T tokens per row and update.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from charlm.errors import Note
from charlm.text.ids import Ids
from charlm.text.items import ItemFormat

Integers = npt.NDArray[np.int64]

IGNORED = -100
"""Target of padding, which has no loss; the default of PyTorch's `cross_entropy`."""

NO_ITEM = -1
"""Index of a row without an item."""

LENGTH_NOISE = 0.5
"""Relative noise of the lengths by which items are sorted. Without noise, all items of an update would end at the same
position, and with much noise, most of an update would be padding."""

GATHERED_ITEMS = 2**16
"""Number of items that are copied at a time, to limit memory."""


@dataclass(frozen=True)
class Items:
    """Items as parts of an array of token ids.

    Attributes:
        ids: Array that contains all items; it may be memory-mapped.
        starts: Position of the first token of each item, (N,).
        lengths: Number of tokens of each item, (N,), the separator included.
    """

    ids: Ids
    starts: Integers
    lengths: Integers

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def num_tokens(self) -> int:
        """Number of tokens of all items."""
        return int(self.lengths.sum())

    @cached_property
    def longest(self) -> int:
        """Number of tokens of the longest item; 0 if there are no items."""
        return int(self.lengths.max(initial=0))

    def select(self, indices: npt.NDArray[np.integer]) -> "Items":
        """Return some of the items, in another order."""
        return Items(self.ids, self.starts[indices], self.lengths[indices])

    def first(self, num_tokens: int) -> "Items":
        """Return the first items that have up to `num_tokens` tokens, and at least one if there is one."""
        count = max(1, int(np.searchsorted(np.cumsum(self.lengths), num_tokens, side="right")))
        return self.select(np.arange(min(count, len(self))))

    def gathered(self) -> "Items":
        """Return a copy of the items whose array contains nothing else, in the order of the items."""
        ends = np.cumsum(self.lengths)
        ids: Ids = np.empty(self.num_tokens, dtype=self.ids.dtype)
        for begin in range(0, len(self), GATHERED_ITEMS):
            part = slice(begin, begin + GATHERED_ITEMS)
            lengths, part_ends = self.lengths[part], ends[part]
            first = int(part_ends[0] - lengths[0])
            shifts = np.repeat(self.starts[part] - (part_ends - lengths), lengths)
            places = np.arange(first, int(part_ends[-1]))
            ids[places] = self.ids[places + shifts]
        return Items(ids, ends - self.lengths, self.lengths)

    def window(self, rows: Integers, offset: int, length: int, start_id: int) -> tuple[Integers, Integers]:
        """Return tokens to read and the token after each of them, (B, T) each.

        Args:
            rows: Index of the item of each row, (B,), or `NO_ITEM`.
            offset: Number of tokens of each item that have been read before.
            length: T.
            start_id: Token before the first one of an item, and in the padding.
        """
        lengths = np.where(rows == NO_ITEM, 0, self.lengths[rows])[:, None]
        offsets = offset + np.arange(-1, length)
        places = np.minimum(self.starts[rows][:, None] + offsets, len(self.ids) - 1).clip(0)
        tokens = self.ids[places].astype(np.int64)
        tokens[(offsets < 0) | (offsets >= lengths)] = start_id
        return tokens[:, :-1], np.where(offsets[1:] < lengths, tokens[:, 1:], IGNORED)


@dataclass(frozen=True, kw_only=True)
class ItemSplit:
    """List of items, divided into training and validation.

    Attributes:
        form: Format of the list.
        train: Items to train on.
        validation: Items to validate on.
        detected: Whether the list was detected automatically.
    """

    form: ItemFormat
    train: Items
    validation: Items
    detected: bool = False

    @property
    def note(self) -> Note:
        """Sentence for the user about the items and their use."""
        found = "the text is a list of items" if self.detected else "items"
        hint = "; set `items` to none if it is not a list" if self.detected else ""
        return Note(
            f"{found}, {self.form.description}: {len(self.train):,} to train on and {len(self.validation):,} to "
            f"validate on, in random order, each read independently{hint}",
            fields=["items"] if self.detected else [],
        )

    def metadata(self) -> dict[str, Any]:
        """Return the metadata of the model file about the items."""
        return {
            "kind": self.form.kind,
            "separator": self.form.separator,
            "train_items": len(self.train),
            "validation_items": len(self.validation),
            "longest": max(self.train.longest, self.validation.longest),
        }


class ItemBatches:
    """Batches of items, with the interface of `StreamBatches`.

    Each epoch reads each item once. Items of similar length are read together. An item longer than `seq_len` tokens is
    read in several updates, and its state is carried over. A batch depends only on the seed and on the number of its
    update, so that a resumed training reads the same batches. About 40 bytes of memory are needed per item.

    Args:
        items: The items.
        batch_size: B, number of items per update.
        seq_len: Maximum of T.
        start_id: Start token.
        seed: Seed of the order of the items.
    """

    def __init__(self, items: Items, batch_size: int, seq_len: int, *, start_id: int, seed: int = 0) -> None:
        self._items = items
        self._start_id = start_id
        self._batch_size = batch_size
        self._seq_len = seq_len
        self._seed = seed
        self._own = slice(0, batch_size)
        self._num_shards = 1
        is_short = items.lengths <= seq_len
        by_length = np.argsort(items.lengths, kind="stable")
        self._short = by_length[is_short[by_length]]
        self._long = _grouped(by_length[~is_short[by_length]], batch_size)
        num_short = -(-len(self._short) // batch_size)
        long_lengths = np.where(self._long == NO_ITEM, 0, items.lengths[self._long]).max(axis=1, initial=0)
        self._num_chunks = np.concatenate([np.ones(num_short, dtype=np.int64), -(-long_lengths // seq_len)])
        self._steps = int(self._num_chunks.sum())
        self._epoch = -1
        self._groups = self._order = self._ends = np.zeros(0, dtype=np.int64)

    def shard(self, rank: int, count: int) -> "ItemBatches":
        """Return the part of these batches for one of `count` processes: B / `count` of the rows."""
        part, size = copy.copy(self), self._batch_size // count
        part._own = slice(rank * size, (rank + 1) * size)
        part._num_shards = count
        return part

    @property
    def tokens_per_step(self) -> float:
        """Mean number of tokens per update, of all processes together."""
        return self._items.num_tokens / self._steps

    @property
    def steps_per_epoch(self) -> float:
        """Number of updates that read each item once."""
        return self._steps

    @property
    def num_targets(self) -> float:
        """Mean number of targets per update and process.

        The loss of an update is the sum of its losses divided by this number. A mean over the tokens of the update
        would give more weight to the tokens of short items.
        """
        return self.tokens_per_step / self._num_shards

    def inputs_and_targets(self, step: int) -> tuple[Integers, Integers]:
        """Return the tokens that an update reads, and the token after each of them, (B, T) each.

        Args:
            step: Number of the update, from 0.
        """
        group, chunk = self._find(step)
        rows, offset = self._groups[group], chunk * self._seq_len
        longest = int(np.where(rows == NO_ITEM, 0, self._items.lengths[rows]).max())
        return self._items.window(rows[self._own], offset, min(self._seq_len, longest - offset), self._start_id)

    def resets(self, step: int) -> npt.NDArray[np.bool_]:
        """Return which rows start an update from the zero state, (B,), bool: all, unless long items are continued."""
        _, chunk = self._find(step)
        return np.full(len(range(self._batch_size)[self._own]), chunk == 0)

    def _find(self, step: int) -> tuple[int, int]:
        """Return the group of items that an update reads, and the number of updates that have read it before."""
        epoch, step = divmod(step, self._steps)
        if epoch != self._epoch:
            self._arrange(epoch)
        position = int(np.searchsorted(self._ends, step, side="right"))
        group = int(self._order[position])
        return group, step - int(self._ends[position] - self._num_chunks[group])

    def _arrange(self, epoch: int) -> None:
        """Divide the items into groups of B for an epoch, and shuffle the groups."""
        random = np.random.default_rng((self._seed, epoch))
        noisy = self._items.lengths[self._short] * (1 + LENGTH_NOISE * random.random(len(self._short)))
        short = _grouped(self._short[np.argsort(noisy, kind="stable")], self._batch_size)
        self._groups = np.concatenate([short, self._long])
        self._order = random.permutation(len(self._groups))
        self._ends = np.cumsum(self._num_chunks[self._order])
        self._epoch = epoch


def _grouped(indices: Sequence[int] | Integers, size: int) -> Integers:
    """Divide indices into groups of nearly equal length, up to `size`, (groups, `size`), padded with `NO_ITEM`."""
    count = -(-len(indices) // size)
    groups: Integers = np.full((count, size), NO_ITEM, dtype=np.int64)
    for row, part in zip(groups, np.array_split(np.asarray(indices), count) if count else [], strict=True):
        row[: len(part)] = part
    return groups
