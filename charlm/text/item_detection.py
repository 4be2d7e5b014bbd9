"""Detection of lists: texts with one item per line, such as names, dictionary words, titles or JSON lines.

A list that is not detected costs little, because the setting `items` can name it. A text that is wrongly taken for a
list loses the connection between its lines. Therefore, every condition of `looks_like_list` must hold. docs/recipe.md
states them for users.
"""

import json
import unicodedata
from collections.abc import Callable, Iterable, Sequence

MAX_SAMPLE_CHARS = 2**20
"""Number of characters, from the beginning of each piece of the text, whose lines are examined."""

MIN_ITEMS = 100
"""Minimum number of lines, and of distinct lines, of a list."""

MIN_DISTINCT = 0.5
"""Minimum share of distinct lines. In a text with one word per line, frequent words repeat."""

MAX_BLANK = 0.01
"""Maximum share of blank lines. Prose, verse and source code have more."""

MAX_ODD = 0.1
"""Maximum share of lines that end with a punctuation mark, and of lines that contain one before a space. Sentences and
source code have more."""

MAX_INDENTED = 0.01
"""Maximum share of lines that begin with whitespace."""

MAX_FULL = 0.3
"""Maximum share of lines that have exactly the length of the longest line. Text that is wrapped without regard to
words, such as DNA sequences or base64, has more, and so has verse with a fixed number of characters."""

MIN_FULL_LENGTH = 20
"""Length of the longest line in characters below which `MAX_FULL` does not apply, because text is not wrapped so
narrowly. Words of five letters and passwords of eight characters are lists."""

MIN_FULL_LENGTH_WIDE = 5
"""As `MIN_FULL_LENGTH`, for lines with ideographs. Chinese names are shorter; verses have five or seven."""

MAX_LENGTH = 100
"""Maximum length in characters of 99 of 100 lines."""

MAX_PHRASE_WORDS = 3
"""Maximum number of words of half of the lines, unless most words are capitalised."""

MAX_LONG_PHRASE_WORDS = 6
"""Maximum number of words of 95 of 100 lines, unless most words are capitalised."""

MIN_CAPITALISED = 0.6
"""Minimum share of capitalised words, of those that begin with a letter, in a list of longer titles. English prose has
about 15 %, German prose about 35 %."""

MIN_WORDY = 0.5
"""Minimum share of lines that have at least as many letters as other characters. Columns of numbers may be a series, in
which the order matters."""

CLOSING = "\"')]}"
"""Marks that may follow the punctuation mark at the end of a sentence, and that titles may end with."""

CLAUSE_MARKS = (". ", ", ", "; ", ": ", "! ", "? ")
"""Marks between sentences and clauses. In scripts without spaces, any punctuation mark beyond ASCII is one."""


def looks_like_list(pieces: Iterable[str]) -> bool:
    """Return True if a text has one item per line.

    Args:
        pieces: The text in pieces that end after newlines. A text with several pieces must satisfy the rule in each.
    """
    found = False
    for piece in pieces:
        sample = piece[:MAX_SAMPLE_CHARS]
        lines = sample.split("\n")
        if len(sample) < len(piece) or not lines[-1]:
            lines.pop()  # incomplete, or the end of the text
        if found and len(piece) < MAX_SAMPLE_CHARS:
            break  # the end of the text
        if not (_are_json(lines) or _are_items(lines)):
            return False
        found = True
    return found


def _are_json(lines: Sequence[str]) -> bool:
    """Return True if each line is a JSON object or a JSON array; the last lines are not checked if there are many."""
    if len(lines) < MIN_ITEMS or not all(line[:1] in {"{", "["} and line[-1:] in {"}", "]"} for line in lines):
        return False
    try:
        return all(isinstance(json.loads(line), dict | list) for line in lines[: 2 * MIN_ITEMS])
    except (ValueError, RecursionError):
        return False


def _are_items(lines: Sequence[str]) -> bool:
    """Return True if lines satisfy every condition of a list of short items."""
    filled = [line for line in lines if line.strip()]
    distinct = len(set(filled))
    return (
        distinct >= MIN_ITEMS
        and distinct >= MIN_DISTINCT * len(filled)
        and len(filled) >= (1 - MAX_BLANK) * len(lines)
        and _share(filled, lambda line: line[0].isspace()) <= MAX_INDENTED
        and _share(filled, _ends_with_mark) <= MAX_ODD
        and _share(filled, _has_clauses) <= MAX_ODD
        and _share(filled, _is_mostly_letters) >= MIN_WORDY
        and _have_lengths_of_items(filled)
        and (_are_phrases(filled) or _are_capitalised(filled))
    )


def _share(lines: Sequence[str], condition: Callable[[str], bool]) -> float:
    """Return the share of lines that satisfy a condition."""
    return sum(map(condition, lines)) / len(lines)


def _ends_with_mark(line: str) -> bool:
    last = line.rstrip().rstrip(CLOSING)[-1:]
    return not last or unicodedata.category(last)[0] in "PS"


def _has_clauses(line: str) -> bool:
    if any(mark in line for mark in CLAUSE_MARKS):
        return True
    return not line.isascii() and any(not char.isascii() and unicodedata.category(char) == "Po" for char in line)


def _is_mostly_letters(line: str) -> bool:
    letters = sum(char.isalpha() or unicodedata.combining(char) > 0 for char in line)
    return 2 * letters >= sum(not char.isspace() for char in line)


def _have_lengths_of_items(lines: Sequence[str]) -> bool:
    """Return True if lines are short, and not filled up to the same length."""
    lengths = sorted(map(len, lines))
    if lengths[int(0.99 * len(lengths))] > MAX_LENGTH:
        return False
    if lengths.count(lengths[-1]) <= MAX_FULL * len(lengths):
        return True
    longest = next(line for line in lines if len(line) == lengths[-1])
    is_wide = any(unicodedata.east_asian_width(char) == "W" for char in longest)
    return lengths[-1] < (MIN_FULL_LENGTH_WIDE if is_wide else MIN_FULL_LENGTH)


def _are_phrases(lines: Sequence[str]) -> bool:
    """Return True if most lines have few words."""
    counts = sorted(len(line.split()) for line in lines)
    return counts[len(counts) // 2] <= MAX_PHRASE_WORDS and counts[int(0.95 * len(counts))] <= MAX_LONG_PHRASE_WORDS


def _are_capitalised(lines: Sequence[str]) -> bool:
    """Return True if most words of the lines, of those that begin with a letter, are capitalised."""
    firsts = [word[0] for line in lines for word in line.split() if word[0].isalpha()]
    return sum(map(str.isupper, firsts)) >= MIN_CAPITALISED * len(firsts) > 0
