"""Token ids: what they are kept in, which one is the unknown token's, and how often each comes."""

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

UNKNOWN_ID = 0
"""The id of the unknown token, in every vocabulary."""

COUNTED_BLOCKS, COUNTED_BLOCK = 64, 2**20
"""Tokens that are counted at most, in so many blocks: enough to know how frequent each is."""

BLOCK = 2**24
"""Ids looked at a time: they may lie in a file that is larger than memory."""

Ids = npt.NDArray[np.unsignedinteger[Any]]
"""Token ids, in the smallest unsigned type that holds the vocabulary."""


def smallest_dtype(vocab_size: int) -> type[np.unsignedinteger[Any]]:
    """The smallest unsigned integer type for ids below `vocab_size`."""
    return np.uint8 if vocab_size <= 2**8 else np.uint16 if vocab_size <= 2**16 else np.uint32


def count_ids(ids: Ids, vocab_size: int) -> npt.NDArray[np.int64]:
    """How often each token comes in a text, (vocab_size,); of a long text, in a sample from all over it."""
    stride = -(-len(ids) // (COUNTED_BLOCKS * COUNTED_BLOCK))
    counts = np.zeros(vocab_size, dtype=np.int64)
    for begin in range(0, len(ids), COUNTED_BLOCK * stride):
        counts += np.bincount(ids[begin : begin + COUNTED_BLOCK], minlength=vocab_size)
    return counts


def in_blocks(ids: Ids) -> Iterator[Ids]:
    """A text block by block; what lies in a mapped file leaves memory again once it has been looked at."""
    for begin in range(0, len(ids), BLOCK):
        yield ids[begin : begin + BLOCK]
        _let_go(ids)


def _let_go(ids: Ids) -> None:
    """Have the system take back the pages of a mapped file, which it reads anew when they are asked for."""
    base: Any = ids
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
