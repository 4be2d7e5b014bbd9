"""Rules by which text without spaces is cut into words, numbers and punctuation.

A model is always used with the rule that it was trained with, whose number is stored in its file. Rule 1 knows letters
and digits. Rule 2 follows Unicode's word boundaries (UAX 29): combining marks belong to the character before them, an
apostrophe or a middle dot between two letters does not end a word, and each ideograph is a word. It differs from UAX 29
in four points. English clitics are split off. Full stops, colons and semicolons end a word. Katakana and other letters
form one word. Scripts without spaces, such as Thai, are cut at spaces and punctuation only.

Both rules split off clitics as the Stanford tokenizer does, with which GloVe's texts were split: do n't, he 's.
"""

import functools
import re
import unicodedata
from typing import Protocol

NEGATION = re.compile(r"n['\u2019]t", re.IGNORECASE)


class WordRule(Protocol):
    """Interface of the rules.

    Attributes:
        number: Number of the rule in model files.
    """

    number: int

    def cut(self, chunk: str) -> list[str]:
        """Split a text without spaces and newlines into pieces, which joined are the text."""
        ...

    def end(self, text: str, begin: int) -> int:
        """Return the end of the piece that begins at a position of a text, which may have spaces and newlines."""
        ...

    def is_word(self, token: str) -> bool:
        """Return whether a token is a word or a number. These take a space on both sides."""
        ...


class LetterRule:
    """Rule 1: a word is a run of letters, digits and underscores.

    Example:
        >>> LetterRule().cut("(don't...")
        ['(', 'do', "n't", '...']
    """

    number = 1

    def cut(self, chunk: str) -> list[str]:
        """Split a text without spaces and newlines into pieces, which joined are the text."""
        return [match.group() for match in self._pieces.finditer(chunk)]

    def end(self, text: str, begin: int) -> int:
        """Return the end of the piece that begins at a position of a text, which may have spaces and newlines."""
        match = self._pieces.match(text, begin)
        assert match is not None, "every character belongs to a piece"
        return match.end()

    def is_word(self, token: str) -> bool:
        """Return whether a token is a word or a number. These take a space on both sides."""
        return (token[0].isalnum() or token[0] == "_") and not NEGATION.fullmatch(token)

    @functools.cached_property
    def _pieces(self) -> re.Pattern[str]:
        return re.compile(
            r"\d+(?:[.,]\d+)+(?!\w)|\w+?(?=n['\u2019]t(?!\w))|n['\u2019]t(?!\w)|['\u2019](?:s|t|re|ve|m|ll|d)(?!\w)"
            r"|\w+|([^\w\s])\1*|\s",
            re.IGNORECASE,
        )


EXTENDER, JOINER, IDEOGRAPH, REGIONAL = "\N{COMBINING GRAVE ACCENT}", "\N{ZERO WIDTH JOINER}", "一", "\U0001f1e6"
"""Characters that stand for all of their class in a shape."""

IDEOGRAPHS = re.compile(
    "[\u3005-\u3007\u3021-\u3029\u3041-\u3096\u309d-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U0001b000-\U0001b16f\U00020000-\U000323af]"
)
"""Ideographs and hiragana, which are written without spaces between words."""


class CharacterClasses(dict[int, int]):
    """Table for `str.translate`, which replaces each character beyond ASCII by one that stands for its class.

    Letters become `a` and digits `0`. Other characters without a class stay as they are. The result is the shape of a
    text: it has the same length and the same word boundaries, and small regular expressions can find them.
    """

    def __missing__(self, point: int) -> int:
        self[point] = point if point < 128 else ord(_class_of(chr(point)))
        return self[point]


def _class_of(char: str) -> str:
    """Return the character that stands for the class of a character beyond ASCII."""
    category = unicodedata.category(char)
    if char == JOINER:
        return JOINER
    if category[0] == "M" or "\U0001f3fb" <= char <= "\U0001f3ff" or (category == "Cf" and char != "\u200b"):
        return EXTENDER
    if IDEOGRAPHS.match(char):
        return IDEOGRAPH
    if char.isdecimal():
        return "0"
    if char.isalnum():
        return "a"
    return REGIONAL if "\U0001f1e6" <= char <= "\U0001f1ff" else char


class UnicodeRule:
    """Rule 2: words have the boundaries of UAX 29, with the exceptions that this module names.

    Example:
        >>> UnicodeRule().cut("l'été(don't...")
        ["l'été", '(', 'do', "n't", '...']
    """

    number = 2

    def __init__(self) -> None:
        self._classes = CharacterClasses()

    def cut(self, chunk: str) -> list[str]:
        """Split a text without spaces and newlines into pieces, which joined are the text."""
        if chunk.isascii():
            return [match.group() for match in self._pieces.finditer(chunk)]
        return [chunk[match.start() : match.end()] for match in self._pieces.finditer(chunk.translate(self._classes))]

    def end(self, text: str, begin: int) -> int:
        """Return the end of the piece that begins at a position of a text, which may have spaces and newlines."""
        chunk_end = _CHUNK_END.search(text, begin + 1)
        chunk = text[begin : chunk_end.start() if chunk_end else len(text)]
        match = self._pieces.match(chunk.translate(self._classes))
        assert match is not None, "every character belongs to a piece"
        return begin + match.end()

    def is_word(self, token: str) -> bool:
        """Return whether a token is a word or a number. These take a space on both sides."""
        first = token[0] if token[0].isascii() else chr(self._classes[ord(token[0])])
        return (first.isalnum() or first == "_") and first != IDEOGRAPH and not NEGATION.fullmatch(token)

    @functools.cached_property
    def _pieces(self) -> re.Pattern[str]:
        """Expression for the pieces of a shape."""
        word, part, extender = "[a-zA-Z0-9_]", f"[a-zA-Z0-9_{EXTENDER}{JOINER}]", f"[{EXTENDER}{JOINER}]"
        mark = rf"[^a-zA-Z0-9_\s{EXTENDER}{JOINER}{IDEOGRAPH}]"
        separator = r"[.,'\u2019\u066b\u066c]"
        within_word = r"['\u2018\u2019\xb7\u0387\u055f\u05f4\u2027\uff07]"
        negation = rf"[nN]['\u2019][tT](?!{part})"
        clitic = rf"['\u2019](?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])(?!{part})"
        return re.compile(
            rf"[0-9]+(?:{separator}[0-9]+)+(?!{part})"
            rf"|{word}{part}*?(?={negation})|{negation}|{clitic}"
            rf"|{word}{part}*(?:(?<![0-9_])(?!{clitic}){within_word}(?=[a-zA-Z]){part}+)*"
            rf"|{IDEOGRAPH}{extender}*|{REGIONAL}{{2}}"
            rf"|{mark}{extender}+(?:(?<={JOINER}){mark}{extender}*)*|({mark})(?:\1(?!{extender}))*|{extender}+|\s"
        )


_CHUNK_END = re.compile("[ \n]")

WORD_RULES: dict[int, WordRule] = {rule.number: rule for rule in (LetterRule(), UnicodeRule())}
"""The rules by their numbers."""

NEWEST_WORD_RULE = max(WORD_RULES)
"""Number of the rule for new models."""
