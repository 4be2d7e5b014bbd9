r"""Line ends: a newline, with or without a carriage return directly before it.

Only `\n` ends a line. A `\r` directly before it belongs to the line end, and a text with `\r\n` is read as the same
text with `\n`. Any other `\r` is an ordinary character. Lengths and positions count the `\r` of line ends, because
measures such as bits per character refer to the original text.
"""

from collections.abc import Iterable, Iterator

RETURN = "\r"


def fold_line_ends(text: str) -> str:
    r"""Return a text with `\n` instead of `\r\n`.

    Example:
        >>> fold_line_ends("one\r\ntwo\rthree")
        'one\ntwo\rthree'
    """
    return text.replace("\r\n", "\n")


def join_line_ends(blocks: Iterable[str]) -> Iterator[str]:
    r"""Move a `\r` at the end of a block to the next block, so that no block ends within a line end."""
    rest = ""
    for block in blocks:
        text = rest + block if rest else block
        rest = RETURN if text.endswith(RETURN) else ""
        yield text[:-1] if rest else text
    if rest:
        yield rest
