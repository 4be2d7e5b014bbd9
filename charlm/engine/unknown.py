"""Unknown tokens of scored texts: which words or characters they stand for, and the cost of their spelling."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from charlm.engine.scores import TokenScores
from charlm.engine.spelling import SpellingModel, uniform_nats
from charlm.text.spans import token_texts
from charlm.text.tokenizer import UNKNOWN_ID, Tokenizer

MAX_CACHED_WORDS = 100_000
"""Maximum number of words whose spelling is remembered."""

MAX_COUNTED_WORDS = 100_000
"""Maximum number of unknown words that are counted. If there are more, the rarer half is forgotten."""


class WordCounts(Counter[str]):
    """Approximate numbers of occurrences of the most frequent words, in bounded memory."""

    def add(self, words: Iterable[str]) -> None:
        """Count words. A token without text of its own, such as an accent that case folding has split off, is none."""
        self.update(filter(None, words))
        if len(self) > MAX_COUNTED_WORDS:
            frequent = self.most_common(MAX_COUNTED_WORDS // 2)
            self.clear()
            self.update(dict(frequent))


class UnknownTokens:
    """Costs of the unknown tokens of one model.

    Args:
        tokenizer: The model's tokenizer.
        spelling: The model of the spelling of words; None if the model file has none.

    Attributes:
        counts: Words or characters that were unknown in the texts so far, with the number of times that each occurred.
        are_spelt: Whether the spelling of unknown tokens has a cost. False for word models without a spelling model.
    """

    def __init__(self, tokenizer: Tokenizer, spelling: SpellingModel | None) -> None:
        self._tokenizer = tokenizer
        self._spelling = spelling
        self.counts = WordCounts()
        self.are_spelt = tokenizer.kind == "char" or spelling is not None
        self._char_nats = uniform_nats(tokenizer.vocab_size - 1)
        self._words: dict[str, str] = {}  # by the part of the text that is one unknown token
        self._nats: dict[str, float] = {}  # by word

    def add_spelling(self, scores: Sequence[TokenScores]) -> list[TokenScores]:
        """Return scores of texts, to which the unknown words and the cost of their spelling are added.

        Args:
            scores: Scores whose `nats` are those of the tokens alone.
        """
        words = [self._unknown_words(part) for part in scores]
        for part in words:
            self.counts.add(part)
        self._spell(word for part in words for word in part)
        return [self._with_spelling(part, found) if found else part for part, found in zip(scores, words, strict=True)]

    def _unknown_words(self, scores: TokenScores) -> list[str]:
        """Return the word or character that each unknown token of a text stands for."""
        if scores.ids.all():  # UNKNOWN_ID is 0
            return []
        texts = token_texts(self._tokenizer, scores.text, scores.ids.tolist())
        parts = [text for text, token_id in zip(texts, scores.ids.tolist(), strict=True) if token_id == UNKNOWN_ID]
        if self._tokenizer.kind == "char":
            return parts
        if len(self._words) > MAX_CACHED_WORDS:
            self._words.clear()
        for part in parts:
            if part not in self._words:
                unknown = self._tokenizer.unknown_in(part)
                # A text that is split at whitespace may contain the unknown token itself.
                self._words[part] = unknown[0] if unknown else part.strip()
        return [self._words[part] for part in parts]

    def _spell(self, words: Iterable[str]) -> None:
        """Compute the cost of the spelling of words that are not in the cache."""
        if self._spelling is None:
            return
        if len(self._nats) > MAX_CACHED_WORDS:
            self._nats.clear()
        new = [word for word in dict.fromkeys(words) if word not in self._nats]
        self._nats.update(zip(new, self._spelling.nats(new).tolist(), strict=True))

    def _with_spelling(self, scores: TokenScores, words: Sequence[str]) -> TokenScores:
        """Return scores to which the cost of the spelling of unknown words is added."""
        if not self.are_spelt:
            return replace(scores, unknown_words=tuple(words))
        spelling = np.zeros_like(scores.nats)
        spelling[scores.ids == UNKNOWN_ID] = [
            self._char_nats if self._spelling is None else self._nats[word] for word in words
        ]
        return replace(scores, nats=scores.nats + spelling, spelling_nats=spelling, unknown_words=tuple(words))
