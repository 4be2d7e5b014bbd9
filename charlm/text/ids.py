"""Token ids: their data type, the id of the unknown token, token frequencies, and block-wise reading."""

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

UNKNOWN_ID = 0
"""Id of the unknown token in every vocabulary."""

MAX_COUNTED_BLOCKS, COUNTED_BLOCK_IDS = 64, 2**20
"""Number and length of the blocks in which tokens are counted. In longer texts, they are a sample."""

BLOCK_IDS = 2**24
"""Number of ids read at a time from a file that may be larger than memory."""

Ids = npt.NDArray[np.unsignedinteger[Any]]
"""Array of token ids in the smallest unsigned integer type that holds the vocabulary."""


def smallest_dtype(vocab_size: int) -> type[np.unsignedinteger[Any]]:
    """Return the smallest unsigned integer type for ids below `vocab_size`."""
    return np.uint8 if vocab_size <= 2**8 else np.uint16 if vocab_size <= 2**16 else np.uint32


def count_ids(ids: Ids, vocab_size: int) -> npt.NDArray[np.int64]:
    """Count the occurrences of each token, (vocab_size,). In a long text, only evenly spaced blocks are counted."""
    stride = -(-len(ids) // (MAX_COUNTED_BLOCKS * COUNTED_BLOCK_IDS))
    counts = np.zeros(vocab_size, dtype=np.int64)
    for begin in range(0, len(ids), COUNTED_BLOCK_IDS * stride):
        counts += np.bincount(ids[begin : begin + COUNTED_BLOCK_IDS], minlength=vocab_size)
    return counts


def in_blocks(ids: Ids) -> Iterator[Ids]:
    """Split ids, (N,), into blocks. Blocks of a memory-mapped file leave memory when the next one is requested."""
    for begin in range(0, len(ids), BLOCK_IDS):
        yield ids[begin : begin + BLOCK_IDS]
        _free_pages(ids)


def _free_pages(ids: Ids) -> None:
    """Free the memory pages of a memory-mapped file, which the system reads again when they are needed."""
    base: Any = ids
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
