"""Spelling of unknown words in a training: estimate of the spelling model, and its cost on the validation text."""

from collections.abc import Iterable

import numpy as np

from charlm.engine.scores import Score, TokenScores
from charlm.engine.spelling import MAX_WORDS, SpellingModel, uniform_nats
from charlm.engine.unknown import UnknownTokens
from charlm.text.ids import UNKNOWN_ID, Ids, in_blocks
from charlm.text.tokenizer import SpacedTokenizer, Tokenizer
from charlm.text.words import JOIN, LINE_END_WORD, NEWLINE, UNKNOWN_WORD

MAX_MEASURED_CHARS = 2**19
"""Number of characters on which the mean cost of spelling an unknown word is measured. It takes about 0.2 s."""


def learn_spelling(tokenizer: Tokenizer) -> SpellingModel | None:
    """Return the spelling model of a new vocabulary; None for characters.

    It is estimated from the words of the vocabulary and from the words that were too rare for it. Each counts once. If
    the text contains the unknown token itself, as in a text in which rare words were replaced by it, this counts as
    often as it occurs.

    Args:
        tokenizer: Tokenizer whose vocabulary has been built from a text.
    """
    if not isinstance(tokenizer, SpacedTokenizer):
        return None
    special = {JOIN, LINE_END_WORD, UNKNOWN_WORD}
    words = [token for token in (*tokenizer.tokens, *tokenizer.rare_words) if token not in special]
    words = [word for word in words if not word.isspace()]
    words = words[:: -(-len(words) // MAX_WORDS) or 1]
    times = dict.fromkeys(words, 1)
    if UNKNOWN_WORD in tokenizer.rare_words:
        times[UNKNOWN_WORD] = tokenizer.rare_words[UNKNOWN_WORD]
    return SpellingModel.estimate(times) if times else None


def spelling_nats_per_token(
    tokenizer: Tokenizer, spelling: SpellingModel | None, ids: Ids, pieces: Iterable[str] = ()
) -> float:
    """Return the mean cost of the spelling of unknown tokens in nats per token, over all tokens.

    Args:
        tokenizer: The tokenizer.
        spelling: The spelling model of a vocabulary of words.
        ids: Token ids of a text, (number of tokens,).
        pieces: The text, in pieces; not needed for characters. Only its beginning is measured if it is long.
    """
    num_unknown = sum(int(np.count_nonzero(block == UNKNOWN_ID)) for block in in_blocks(ids))
    if not num_unknown:
        return 0.0
    if tokenizer.kind == "char":
        return uniform_nats(tokenizer.vocab_size - 1) * num_unknown / len(ids)
    unknown_tokens, score = UnknownTokens(tokenizer, spelling), Score()
    for piece in pieces:
        head = piece[:MAX_MEASURED_CHARS]
        text = head if head == piece else head[: head.rfind(NEWLINE) + 1] or head
        text_ids = tokenizer.encode(text)
        (scores,) = unknown_tokens.add_spelling([TokenScores(text, text_ids, np.zeros(len(text_ids), np.float32))])
        score += scores.score
        if score.num_chars >= MAX_MEASURED_CHARS or head != piece:
            break
    return score.spelling_nats / max(1, score.num_unknown) * num_unknown / len(ids)
