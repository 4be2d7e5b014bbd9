"""Escaping of text from untrusted sources, such as file names, tokens and headers of model files.

A terminal obeys control characters. Untrusted text must not clear the screen, rename the window or reverse the
direction of writing. Therefore, every character that is not printable is shown as its escape sequence.
"""


def escape_unprintable(text: str) -> str:
    r"""Return a text on one line, in which every character that is not printable is replaced by its escape sequence.

    Control characters, newlines, marks that change the direction of writing, and lone surrogates are escaped. Letters,
    symbols and the ASCII space are not.

    Example:
        >>> print(escape_unprintable("größer\n\x1b[2J"))
        größer\n\x1b[2J
    """
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def escape_unprintable_lines(text: str) -> str:
    r"""Return a text with its newlines and tabs, in which all other characters that are not printable are escaped.

    Example:
        >>> print(escape_unprintable_lines("größer\n\x1b[2J"))
        größer
        \x1b[2J
    """
    return "".join(char if char.isprintable() or char in "\n\t" else _escape(char) for char in text)


def escape_controls(text: str) -> str:
    r"""Return a text in which ASCII control characters and backslashes are escaped, for a column of a table.

    All other characters are unchanged. Without tabs and newlines, a column and a row cannot end within the text. The
    result can be converted back.

    Example:
        >>> print(escape_controls("a\tb\\c"))
        a\tb\\c
    """
    return text.translate(_CONTROL_ESCAPES)


_CONTROL_ESCAPES = {
    point: chr(point).encode("unicode_escape").decode("ascii") for point in (*range(0x20), ord("\\"), 0x7F)
}


def _escape(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte that was not valid in the encoding (surrogateescape)
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")
