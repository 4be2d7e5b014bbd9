"""Scores of continuations: the part of a scored text that follows a context."""

from dataclasses import replace
from itertools import accumulate

import numpy as np

from charlm.engine.scores import TokenScores
from charlm.text.spans import token_texts
from charlm.text.tokenizer import UNKNOWN_ID, Tokenizer


def continuation(tokenizer: Tokenizer, scores: TokenScores, num_chars: int) -> TokenScores:
    """Return the scores of a text without those of the context at its beginning.

    The text is split into tokens as a whole. A token belongs to the context if it ends there. A token that begins in
    the context and ends after it belongs to the continuation, and so does the token for a missing space between both.
    For models of characters, this is the score of the whole text minus the score of the context.

    Args:
        tokenizer: The model's tokenizer.
        scores: The scored text.
        num_chars: Number of characters of the context.

    Example:
        >>> from charlm.text.tokenizer import CharTokenizer
        >>> tokenizer = CharTokenizer("tobe ")
        >>> scores = TokenScores("to be", tokenizer.encode("to be"), np.arange(5, dtype=np.float32))
        >>> continuation(tokenizer, scores, 2).text
        ' be'
    """
    if not num_chars:
        return scores
    first = num_chars
    if tokenizer.kind != "char":
        ends = list(accumulate(map(len, token_texts(tokenizer, scores.text, scores.ids.tolist()))))
        first = next((index for index, end in enumerate(ends) if end >= num_chars), len(ends))
        first += first < len(ends) and ends[first] == num_chars
    num_unknown = int(np.count_nonzero(scores.ids[:first] == UNKNOWN_ID))
    return replace(
        scores,
        text=scores.text[num_chars:],
        ids=scores.ids[first:],
        nats=scores.nats[first:],
        entropy_nats=None if scores.entropy_nats is None else scores.entropy_nats[first:],
        spelling_nats=None if scores.spelling_nats is None else scores.spelling_nats[first:],
        unknown_words=scores.unknown_words[num_unknown:],
    )
