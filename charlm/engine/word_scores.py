"""Scores of words, summed over their tokens."""

import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from charlm.engine.scores import TokenScores
from charlm.text.spans import token_ends
from charlm.text.tokenizer import UNKNOWN_ID, Tokenizer

WORD = re.compile(r"(\s*)\S+")
"""A word: the characters up to the next whitespace. The whitespace before a word belongs to the word."""


class WordScore(NamedTuple):
    """Score of a word, or of the whitespace after the last word.

    Attributes:
        begin: Position in the text at which the whitespace before the word begins.
        start: Position at which the word begins; `begin` if there is no word but only whitespace.
        end: Position after the word.
        nats: Negative log-likelihood of the word and of the whitespace before it, in nats.
        num_unknown: Number of its tokens that are not in the vocabulary.
        is_space: Whether this is the whitespace after the last word, such as the newline of a line.
    """

    begin: int
    start: int
    end: int
    nats: float
    num_unknown: int
    is_space: bool = False


def word_scores(tokenizer: Tokenizer, scores: TokenScores) -> list[WordScore]:
    r"""Sum the scores of tokens over words. The sum over all words is the score of the text.

    Words are separated by whitespace. The whitespace before a word belongs to the word. The whitespace after the last
    word, with the newline of a line, has an entry of its own. A token counts for the word in which it ends.

    Args:
        tokenizer: The model's tokenizer.
        scores: The scored text.

    Example:
        >>> from charlm.text.tokenizer import CharTokenizer
        >>> nats = np.arange(6, dtype=np.float32)
        >>> text, tokenizer = "be  k\n", CharTokenizer("bek \n")
        >>> for word in word_scores(tokenizer, TokenScores(text, tokenizer.encode(text), nats)):
        ...     print(repr(text[word.start : word.end]), word.nats)
        'be' 1.0
        'k' 9.0
        '\n' 5.0
    """
    text = scores.text
    matches = [(match.start(), match.end(1), match.end()) for match in WORD.finditer(text)]
    words = [(begin, start, end, False) for begin, start, end in matches]
    last = words[-1][2] if words else 0
    if last < len(text):
        words.append((last, last, len(text), True))
    if not words:
        return []
    ends = _ends_without_final_whitespace(tokenizer, scores)
    word_ends = np.array([end for _, _, end, _ in words])
    indices = np.minimum(word_ends.searchsorted(ends), len(words) - 1)
    nats = np.bincount(indices, scores.nats, minlength=len(words)).tolist()
    unknown = np.bincount(indices[scores.ids == UNKNOWN_ID], minlength=len(words)).tolist()
    return [WordScore(*word[:3], nats[index], unknown[index], word[3]) for index, word in enumerate(words)]


def _ends_without_final_whitespace(tokenizer: Tokenizer, scores: TokenScores) -> npt.NDArray[np.intp]:
    """Return the position at which each token ends, without whitespace that belongs to no token of its own."""
    ends = np.array(token_ends(tokenizer, scores.text, scores.ids.tolist()), dtype=np.intp)
    if len(ends):
        last = scores.text[ends[-2] if len(ends) > 1 else 0 :]
        if last.strip():
            ends[-1] -= len(last) - len(last.rstrip())
    return ends
