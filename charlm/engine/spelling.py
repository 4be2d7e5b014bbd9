"""Spelling of unknown tokens: the probability of the characters that an unknown token stands for.

A model assigns a probability to its unknown token, but not to the word that the token replaces. Without the cost of its
characters, an unknown word is cheaper than most known words, and meaningless text is more probable than English.
Therefore, the score of an unknown token has two parts: the token, and its spelling.

- Words: a small n-gram model of characters, which is part of the model file. A newline ends each word. Characters that
  this model does not know are equally probable, so that every word has a probability.
- Characters: all characters that are not in the vocabulary are equally probable.

The spelling model does not know which words are in the vocabulary, and assigns probability to them too. This makes
unknown words slightly too expensive, never too cheap.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from charlm.engine.kneser_ney import estimate
from charlm.engine.ngram import NGram
from charlm.text.characters import CharTokenizer
from charlm.text.ids import UNKNOWN_ID

NUM_CODE_POINTS = 0x110000
"""Number of Unicode code points. Surrogates are included: they stand for bytes that are not valid in the encoding."""

WORD_END = "\n"
"""Character before and after each word. No word contains it, because a newline is a token in every vocabulary."""

MIN_CHAR_WORDS = 2
"""Minimum number of words in which a character occurs to be known to the spelling model. The other characters show how
frequent characters are that do not occur in the training text at all."""

MAX_WORDS = 30_000
"""Maximum number of words from which a spelling model is estimated. It takes about 0.3 s."""

MAX_NGRAMS = 160_000
"""Maximum number of n-grams of a spelling model. Each takes about 3.5 bytes of the model file."""

MAX_ORDER = 6
"""Maximum order of a spelling model.

Evidence: bits per character of the 1,726 unknown words in the last tenth of tiny Shakespeare, for a vocabulary of the
6,821 words that occur at least twice in the first nine tenths. Columns: the words from which the model is estimated.

    order   words that occur once   vocabulary   both
    4       4.50                    4.09         3.94
    5       4.35                    4.01         3.76
    6       4.30                    3.99         3.70

With a minimum count of 5: 3.51, 4.02 and 3.31 at order 6. Counting rare words as often as they occur: 0.07 better than
counting them once, but only if the vocabulary is left out."""


def uniform_nats(num_known: int) -> float:
    """Return the cost of one character out of all that are not known, in nats.

    Args:
        num_known: Number of known characters.
    """
    return math.log(NUM_CODE_POINTS - num_known)


class SpellingModel:
    """Model of the characters of words.

    Args:
        chars: Known characters, distinct, without the newline. Character i has the id i + 2.
        ngrams: Model of the ids; id 0 is any other character, and id 1 the newline.

    Raises:
        ValueError: If the characters are not distinct, or their number does not fit the model.

    Example:
        >>> model = SpellingModel.estimate({"banana": 1, "bandana": 1})
        >>> usual, unusual = model.nats(["banana", "qzqzqz"])
        >>> bool(usual < unusual)
        True
    """

    def __init__(self, chars: str, ngrams: NGram) -> None:
        self._tokenizer = CharTokenizer(WORD_END + chars)
        self._ngrams = ngrams
        if self._tokenizer.vocab_size != ngrams.vocab_size:
            raise ValueError(f"a spelling model of {ngrams.vocab_size} tokens for {len(chars)} characters")
        self._unknown_nats = uniform_nats(len(chars) + 1)

    @classmethod
    def estimate(cls, words: Mapping[str, int]) -> "SpellingModel":
        """Return the model of words.

        The order is the largest, up to `MAX_ORDER`, that has no more than `MAX_NGRAMS` n-grams.

        Args:
            words: The words, and the number of times that each counts.
        """
        num_words: Counter[str] = Counter()
        for word, times in words.items():
            num_words.update(dict.fromkeys(word, times))
        chars = "".join(sorted(char for char, count in num_words.items() if count >= MIN_CHAR_WORDS))
        tokenizer = CharTokenizer(WORD_END + chars)
        text, starts = _joined(list(words))
        for order in range(MAX_ORDER, 0, -1):
            ngrams = estimate(
                tokenizer.encode(text),
                order=order,
                vocab_size=tokenizer.vocab_size,
                starts=starts,
                times=np.array(list(words.values())),
                dtype=np.float16,
            )
            if ngrams.num_ngrams <= MAX_NGRAMS:
                break
        return cls(chars, ngrams)

    @property
    def order(self) -> int:
        """Number of characters of an n-gram."""
        return self._ngrams.order

    @property
    def chars(self) -> str:
        """Known characters."""
        return "".join(self._tokenizer.tokens[2:])

    def nats(self, words: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the negative log-probability of the spelling of each word, (number of words,), in nats.

        Args:
            words: Words without newlines.
        """
        if not words:
            return np.zeros(0, dtype=np.float32)
        text, starts = _joined(words)
        ids = self._tokenizer.encode(text)
        nats = self._ngrams.nats(ids, starts) + (ids == UNKNOWN_ID) * self._unknown_nats
        sums: npt.NDArray[np.float64] = np.add.reduceat(nats, starts)
        return sums.astype(np.float32)

    def to_tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the n-grams as arrays."""
        return self._ngrams.to_tensors()

    @classmethod
    def from_tensors(cls, chars: str, tensors: Mapping[str, npt.NDArray[Any]]) -> "SpellingModel":
        """Return the model of characters and arrays, which may be untrusted.

        Raises:
            ValueError: If they are damaged.
        """
        return cls(chars, NGram.from_tensors(tensors))


def _joined(words: Sequence[str]) -> tuple[str, npt.NDArray[np.intp]]:
    """Return words as one text, each between two newlines, and the position of the first newline of each."""
    ends = np.cumsum([len(word) + 2 for word in words], dtype=np.intp)
    return "".join(f"{WORD_END}{word}{WORD_END}" for word in words), np.concatenate([[0], ends[:-1]]).astype(np.intp)
