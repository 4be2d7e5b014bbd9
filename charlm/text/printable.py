"""Makes text from strangers safe to show: file names, tokens, headers of model files.

A terminal obeys what it is sent. Text that somebody else wrote must not clear a screen, rename a window, or turn
the order of letters around, so whatever is not printable is shown as its escape instead.
"""


def escape_unprintable(text: str) -> str:
    """A text on one line, with everything that is not a printable character as its escape, `\\n` or `\\x1b`.

    Control characters, both blocks of them, line ends, marks that turn the direction of writing, and lone
    surrogates are escaped; letters, signs and spaces of every script stay.
    """
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte that was not of the encoding
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")
