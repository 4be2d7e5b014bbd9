r"""Escape sequences in text that a user types as the value of an option.

A shell passes `\n` on as two characters. Options whose value is text therefore read the escape sequences of this
module, all of them in the same way. Text from files and pipes is never changed.
"""

import re

ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
"""Characters that a backslash and one letter stand for."""

ESCAPES_HELP = r"\n, \t, \r, \\ and \uXXXX are newline, tab, carriage return, backslash and a character by its code."
"""Sentence about the escape sequences for help texts."""

_SEQUENCE = re.compile(r"\\(?:u(?P<digits>[0-9A-Fa-f]{4})|(?P<letter>u[0-9A-Fa-f]{0,3}|.?))", re.DOTALL)


def unescape(text: str) -> str:
    r"""Replace the escape sequences of a text.

    `\n`, `\t` and `\r` become a newline, a tab and a carriage return. `\\` becomes a backslash. `\uXXXX`, with four
    hexadecimal digits, becomes the character with this code point.

    Raises:
        ValueError: If a backslash begins no escape sequence. The message says which, and what to write instead.

    Example:
        >>> unescape(r"ROMEO:\n") == "ROMEO:\n", unescape(r"C:\\new")
        (True, 'C:\\new')
    """
    return _SEQUENCE.sub(_character, text)


def _character(found: re.Match[str]) -> str:
    """Return the character that an escape sequence stands for."""
    if digits := found["digits"]:
        point = int(digits, 16)
        if 0xD800 <= point < 0xE000:
            raise ValueError(rf"{found[0]} is half of a character; write the character itself")
        return chr(point)
    if found["letter"] not in ESCAPES:
        raise ValueError(rf"{found[0]} is not an escape sequence; write \\ for a backslash")
    return ESCAPES[found["letter"]]
