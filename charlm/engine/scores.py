"""Scores of text: the negative log-likelihood of tokens, lines and whole texts, and the measures derived from it."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from charlm.text.tokenizer import UNKNOWN_ID, Ids

Array = npt.NDArray[np.float32]

MAX_EXPONENT = 700.0
"""Exponent, in nats, from which the exponential counts as infinite. A 64-bit float overflows at exp(709.8)."""


def perplexity(nats_per_token: float) -> float:
    """Return the exponential of a loss in nats per token; infinity if a float cannot hold it."""
    return math.exp(nats_per_token) if nats_per_token < MAX_EXPONENT else math.inf


@dataclass(frozen=True, kw_only=True)
class Score:
    """Score of a text. Scores of parts of a text can be added.

    Attributes:
        nll_nats: Negative log-likelihood of the text, in nats. It includes the spelling of unknown tokens.
        num_tokens: Number of tokens.
        num_unknown: Number of tokens that are not in the model's vocabulary.
        unknown_nats: Negative log-likelihood of the unknown tokens without their spelling, in nats. It is part of
            `nll_nats`.
        spelling_nats: Negative log-likelihood of the spelling of the unknown tokens, in nats. It is part of `nll_nats`.
        num_chars: Number of characters of the original text, including the carriage returns of its line ends.
        num_bytes: Number of bytes of the original text in UTF-8.

    Example:
        >>> first = Score(nll_nats=3.0, num_tokens=2, num_chars=2, num_bytes=2)
        >>> second = Score(nll_nats=1.0, num_tokens=2, num_chars=2, num_bytes=2)
        >>> (first + second).nats_per_token
        1.0
    """

    nll_nats: float = 0.0
    num_tokens: int = 0
    num_unknown: int = 0
    unknown_nats: float = 0.0
    spelling_nats: float = 0.0
    num_chars: int = 0
    num_bytes: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(
            nll_nats=self.nll_nats + other.nll_nats,
            num_tokens=self.num_tokens + other.num_tokens,
            num_unknown=self.num_unknown + other.num_unknown,
            unknown_nats=self.unknown_nats + other.unknown_nats,
            spelling_nats=self.spelling_nats + other.spelling_nats,
            num_chars=self.num_chars + other.num_chars,
            num_bytes=self.num_bytes + other.num_bytes,
        )

    @property
    def token_nats(self) -> float:
        """Negative log-likelihood of the tokens without the spelling of unknown ones, in nats."""
        return self.nll_nats - self.spelling_nats

    @property
    def nats_per_token(self) -> float:
        """Cross-entropy in nats per token, without the spelling of unknown tokens, as published figures have it."""
        return self.token_nats / self.num_tokens

    @property
    def nats_per_char(self) -> float:
        """Cross-entropy in nats per character, including the spelling of unknown tokens."""
        return self.nll_nats / self.num_chars

    @property
    def bits_per_token(self) -> float:
        """Cross-entropy in bits per token, without the spelling of unknown tokens."""
        return self.nats_per_token / math.log(2)

    @property
    def bits_per_char(self) -> float:
        """Cross-entropy in bits per character, including the spelling of unknown tokens."""
        return self.nats_per_char / math.log(2)

    @property
    def spelling_bits_per_char(self) -> float:
        """The part of `bits_per_char` for the spelling of unknown tokens."""
        return self.spelling_nats / self.num_chars / math.log(2)

    @property
    def bits_per_byte(self) -> float:
        """Cross-entropy in bits per byte of UTF-8, including the spelling of unknown tokens."""
        return self.nll_nats / self.num_bytes / math.log(2)

    @property
    def perplexity(self) -> float:
        """Perplexity per token, the exponential of `nats_per_token`; infinite if a float cannot hold it."""
        return perplexity(self.nats_per_token)

    @property
    def perplexity_of_known(self) -> float:
        """Perplexity per known token; NaN if all tokens are unknown."""
        num_known = self.num_tokens - self.num_unknown
        return perplexity((self.token_nats - self.unknown_nats) / num_known) if num_known else math.nan


@dataclass(frozen=True, eq=False)
class TokenScores:
    """A text with the score of each of its tokens.

    Attributes:
        text: The text, with newlines as line ends.
        ids: Its token ids, (T,).
        nats: Negative log-probability of each token in nats, (T,), float32. That of an unknown token includes its
            spelling.
        num_returns: Number of carriage returns in the line ends of the original text.
        spelling_nats: The part of `nats` that is the cost of the spelling, (T,), float32; None if there is none.
        unknown_words: The word or character that each unknown token stands for.
        entropy_nats: Entropy of the distribution that predicted each token, in nats, (T,), float32; None if it was not
            computed.
    """

    text: str
    ids: Ids
    nats: Array
    num_returns: int = 0
    spelling_nats: Array | None = None
    unknown_words: Sequence[str] = ()
    entropy_nats: Array | None = None

    @property
    def token_nats(self) -> Array:
        """Negative log-probability of each token without the spelling of unknown ones, in nats, (T,), float32."""
        return self.nats if self.spelling_nats is None else self.nats - self.spelling_nats

    @functools.cached_property
    def score(self) -> Score:
        """Score of the whole text. Sums are computed in double precision."""
        unknown = self.ids == UNKNOWN_ID
        spelling = 0.0 if self.spelling_nats is None else float(self.spelling_nats.sum(dtype=np.float64))
        return Score(
            nll_nats=float(self.nats.sum(dtype=np.float64)),
            num_tokens=len(self.ids),
            num_unknown=int(unknown.sum()),
            unknown_nats=float(self.nats[unknown].sum(dtype=np.float64)) - spelling,
            spelling_nats=spelling,
            num_chars=len(self.text) + self.num_returns,
            num_bytes=len(self.text.encode("utf-8", "surrogateescape")) + self.num_returns,
        )
