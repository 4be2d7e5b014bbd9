"""Scores of continuations: the part of a scored text that follows a context."""

from bisect import bisect_right
from dataclasses import replace

import numpy as np

from charlm.engine.scores import TokenScores
from charlm.text.spans import token_ends
from charlm.text.tokenizer import UNKNOWN_ID, Tokenizer
from charlm.text.words import JOIN


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
    ids = scores.ids.tolist()
    first = bisect_right(token_ends(tokenizer, scores.text, ids), num_chars)
    if tokenizer.kind == "word" and first and tokenizer.tokens[ids[first - 1]] == JOIN:
        first -= 1
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
