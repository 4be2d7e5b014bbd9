"""Folding of text before it is encoded: lower case and Unicode normalisation.

A folded text may have other lengths than the original: the lower case of one character can be two, and a letter with
its combining marks can become one character. `original_ends` finds the place in the original text.
"""

import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, cast

NORMAL_FORMS = ("none", "NFC", "NFKC")
"""Unicode normal forms that a text can be converted to; none leaves it unchanged."""

HANGUL_JAMO = range(0x1160, 0x1200)
"""Vowels and final consonants, which compose with the letter before them."""


@dataclass(frozen=True)
class Folding:
    r"""Changes of a text before it is encoded.

    Attributes:
        lowercase: Whether text is converted to lower case.
        normalize: Unicode normal form that text is converted to, one of `NORMAL_FORMS`.

    Raises:
        ValueError: If there is no such normal form.

    Example:
        >>> Folding(lowercase=True, normalize="NFC").fold("E\u0301te\u0301") == "\xe9t\xe9"
        True
    """

    lowercase: bool = False
    normalize: str = "none"

    def __post_init__(self) -> None:
        if self.normalize not in NORMAL_FORMS:
            raise ValueError(f"normalize must be one of {', '.join(NORMAL_FORMS)}")

    @property
    def is_active(self) -> bool:
        """True if there is anything to change."""
        return self.lowercase or self.normalize != "none"

    def fold(self, text: str) -> str:
        """Return the folded text."""
        if not self.is_active:
            return text
        text = self._normal(text)
        return self._normal(text.lower()) if self.lowercase else text

    def original_ends(self, text: str, ends: Sequence[int]) -> list[int]:
        """Return the positions in a text of positions in the folded text.

        A position within the result of several characters, such as a letter with its marks, becomes their end.

        Args:
            text: The original text.
            ends: Positions in the folded text, in ascending order.
        """
        folded = self.fold(text)
        if len(folded) == len(text) and self._normal(text) == text:
            return list(ends)
        begins = [index for index, char in enumerate(text) if not (index and _EXTENDS[char])]
        bounds = [*begins, len(text)]
        parts = (text[begin:end] for begin, end in zip(begins, bounds[1:], strict=True))
        folded_bounds = list(accumulate((len(self.fold(part)) for part in parts), initial=0))
        if folded_bounds[-1] != len(folded):  # a character composes with another one in a way that is not known here
            bounds, folded_bounds = [0, len(text)], [0, len(folded)]
        return [bounds[bisect_left(folded_bounds, end)] for end in ends]

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes that differ from their defaults."""
        return ({"lowercase": True} if self.lowercase else {}) | (
            {"normalize": self.normalize} if self.normalize != "none" else {}
        )

    def _normal(self, text: str) -> str:
        if self.normalize == "none" or text.isascii():
            return text
        return unicodedata.normalize(cast(Literal["NFC", "NFKC"], self.normalize), text)


class _Extends(dict[str, bool]):
    """Table that says whether a character may be combined with the one before it."""

    def __missing__(self, char: str) -> bool:
        first = unicodedata.normalize("NFKD", char)[0]
        self[char] = unicodedata.category(first)[0] == "M" or ord(char) in HANGUL_JAMO or ord(first) in HANGUL_JAMO
        return self[char]


_EXTENDS = _Extends()
