"""Features of texts for counts: their words and pairs of words, and the runs of characters of their words.

A feature has a key, an integer of 63 bits.

Shapes: N texts, K occurrences of features.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from charlm.text.ids import UNKNOWN_ID
from charlm.text.tokenizer import Tokenizer
from charlm.text.words import JOIN

Keys = npt.NDArray[np.int64]
Indices = npt.NDArray[np.intp]

RUN_LENGTHS = (2, 3, 4, 5)
"""Lengths of the runs of characters. A run may begin or end with the space next to the word."""

HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Odd factor of the hash of a run: 2^64 divided by the golden ratio (Knuth)."""


MAX_KEY = np.uint64(2**63 - 1)
"""Highest key of a feature."""


class Features(NamedTuple):
    """Features of N texts, in any order.

    Attributes:
        texts: Index of the text of each occurrence of a feature, (K,), int64.
        keys: Key of the feature, (K,), int64.
    """

    texts: Indices
    keys: Keys


def word_features(texts: Sequence[str], tokenizer: Tokenizer) -> Features:
    """Return the words of texts and the pairs of neighbouring words.

    The key of a word is its id, and that of a pair is (1 + first id) * V + second id. Unknown words have no features,
    and neither have spaces and newlines.

    Args:
        texts: N texts.
        tokenizer: Tokenizer of words with V tokens.
    """
    ids = tokenizer.encode("".join(" ".join(text.split("\n")) + "\n" for text in texts)).astype(np.int64)
    newline = ids == tokenizer.tokens.index("\n")
    text_of = np.cumsum(newline) - newline
    is_word = np.array([token != JOIN and not token.isspace() for token in tokenizer.tokens])
    kept = is_word[ids]
    ids, text_of = ids[kept], text_of[kept]
    known = ids != UNKNOWN_ID
    in_pair = (text_of[1:] == text_of[:-1]) & known[1:] & known[:-1]
    pairs = (1 + ids[:-1][in_pair]) * tokenizer.vocab_size + ids[1:][in_pair]
    return Features(np.concatenate([text_of[known], text_of[:-1][in_pair]]), np.concatenate([ids[known], pairs]))


def spelling_features(texts: Sequence[str]) -> Features:
    """Return the runs of characters of the words of texts, which whitespace separates, in lower case.

    The key of a run c1 ... cn is the hash (((n * a + c1) * a + c2) * a ...) modulo 2^63.

    Args:
        texts: N texts.
    """
    joined = "".join(f" {' '.join(text.lower().split())} \n" for text in texts)
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    is_newline = codes == ord("\n")
    is_gap = (codes == ord(" ")) | is_newline
    text_of = np.cumsum(is_newline) - is_newline
    all_texts, all_keys = [np.zeros(0, dtype=np.intp)], [np.zeros(0, dtype=np.int64)]
    for length in RUN_LENGTHS:
        count = len(codes) - length + 1
        if count <= 0:
            break
        keys = np.full(count, length, dtype=np.uint64)
        valid = ~is_newline[:count] & ~is_newline[length - 1 :]
        for offset in range(length):
            keys = keys * HASH_FACTOR + codes[offset : offset + count]
            if 0 < offset < length - 1:
                valid &= ~is_gap[offset : offset + count]
        if length == 2:
            valid &= ~(is_gap[:count] & is_gap[1:])
        all_texts.append(text_of[:count][valid])
        all_keys.append((keys[valid] & MAX_KEY).astype(np.int64))
    return Features(np.concatenate(all_texts), np.concatenate(all_keys))
