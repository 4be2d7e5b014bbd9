"""Heat maps of surprisal: each character is marked with its bits, in terminal colours, in digits, or on a web page.

The surprisal of a word is divided equally among its characters, so that word models and character models can be
compared.

This module imports NumPy. Import it after the number of threads has been set.
"""

import html
import math
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from charlm.atomic import atomic_write
from charlm.cli.score_views import View
from charlm.engine.scores import TokenScores
from charlm.errors import CharlmError
from charlm.text.spans import token_texts
from charlm.text.tokenizer import Tokenizer

LEVELS = (1, 2, 4, 6, 9)
"""Lower bounds of the levels above the first, in bits per character. An untrained model of 64 characters has 6 bits
everywhere."""

LABELS = ("below 1", "1-2", "2-4", "4-6", "6-9", "9 or more")
"""Labels of the levels in the legend."""

TERMINAL_STYLES = ("", "30;48;5;230", "30;48;5;222", "30;48;5;215", "97;48;5;160", "1;4;97;48;5;90")
"""ANSI styles of the levels, from pale to dark. The highest level is bold and underlined too."""

PAGE_COLOURS = ("transparent", "#fff7d6", "#fddc8c", "#fbb061", "#d7301f", "#7a0177")
"""CSS background colours of the levels."""

JOINERS = "\u200b\u200c\u200d\u2060\ufeff"
"""Characters without width that join their neighbours or keep them apart."""

MEDIAL_JAMO = "".join(map(chr, range(0x1160, 0x1200)))
"""Vowels and final consonants of Korean, which are shown within the syllable that the consonant before them begins."""

PAGE_HEAD = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
h1 {{ font-size: 1.2em }}
body {{ font: 16px/1.6 ui-monospace, monospace; max-width: 60em; margin: 2em auto; padding: 0 1em;
  background: #fff; color: #111 }}
pre {{ font: inherit; white-space: pre-wrap; overflow-wrap: anywhere }}
{rules}
</style>
<h1>{title}</h1>
<p>Surprisal in bits per character: {legend}</p>
<pre>
"""


def surprisals(tokenizer: Tokenizer, scores: TokenScores) -> Iterator[tuple[str, float]]:
    """Yield the text of each token with its surprisal in bits per character."""
    for text, nats in zip(token_texts(tokenizer, scores.text, scores.ids.tolist()), scores.nats.tolist(), strict=True):
        yield text, nats / math.log(2) / max(1, len(text))


def level_of(bits: float) -> int:
    """Return the level of a surprisal in bits per character, from 0 to 5."""
    return sum(bits >= bound for bound in LEVELS)


def visible(char: str) -> str:
    """Return a character in a form that can be shown.

    Control characters become their symbols. Characters that are not printable, such as lone surrogates and marks that
    change the direction of writing, become U+FFFD, except those that join their neighbours or keep them apart.
    """
    point = ord(char)
    if point < 0x20:
        return "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}" if char == "\n" else chr(0x2400 + point)
    if point == 0x7F:
        return "\N{SYMBOL FOR DELETE}"
    return (
        char
        if char.isprintable() or char in JOINERS or unicodedata.category(char) == "Zs"
        else "\N{REPLACEMENT CHARACTER}"
    )


class ColourHeatmap(View):
    """Heat map in the colours of a terminal.

    Args:
        tokenizer: The model's tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        legend = " ".join(_coloured(f" {label} ", level) for level, label in enumerate(LABELS))
        sys.stdout.write(f"bits per character: {legend}\n")

    def add(self, scores: Sequence[TokenScores]) -> None:
        """Print the next part of a line. Adjacent characters of the same level share one escape sequence."""
        run, run_level = "", 0
        for text, bits in surprisals(self._tokenizer, scores[0]):
            level = level_of(bits)
            if level != run_level:
                sys.stdout.write(_coloured(run, run_level))
                run, run_level = "", level
            run += "".join(map(visible, text))
        sys.stdout.write(_coloured(run, run_level))

    def end_line(self) -> None:
        """End the line."""
        sys.stdout.write("\n")


class DigitHeatmap(View):
    """Heat map without colours. The digit below each character is its surprisal in bits, rounded down.

    Args:
        tokenizer: The model's tokenizer.
        width: Number of terminal columns after which a line is wrapped.
    """

    def __init__(self, tokenizer: Tokenizer, width: int) -> None:
        self._tokenizer = tokenizer
        self._width = max(2, width)
        self._clear()
        sys.stdout.write("below each character: its surprisal in bits; a dot for less than 1, 9 for 9 or more\n")

    def _clear(self) -> None:
        self._chars, self._digits, self._num_columns = "", "", 0

    def add(self, scores: Sequence[TokenScores]) -> None:
        """Add the next part of a line, and print the rows that are full."""
        for text, bits in surprisals(self._tokenizer, scores[0]):
            digit = "." if bits < 1 else str(min(9, int(bits)))
            for char in map(visible, text):
                num_columns = _num_columns(char)
                if self._num_columns + num_columns > self._width:
                    self.end_line()
                self._chars += char
                self._digits += digit.ljust(num_columns)[:num_columns]
                self._num_columns += num_columns

    def end_line(self) -> None:
        """Print the row of characters and the row of digits."""
        sys.stdout.write(f"{self._chars}\n{self._digits}\n")
        self._clear()


class PageHeatmap(View):
    """Heat map as a web page without external files. Each token's tooltip is its surprisal in bits per character.

    Args:
        tokenizer: The model's tokenizer.
        page: File to write.
        title: Heading of the page.

    Raises:
        CharlmError: If the file cannot be written. A page that was there before stays as it was.
    """

    def __init__(self, tokenizer: Tokenizer, page: str, title: str) -> None:
        self._tokenizer = tokenizer
        self._nats, self._num_chars = 0.0, 0
        self._page = page
        self._stack = ExitStack()
        with self._errors():
            self._file = self._stack.enter_context(atomic_write(Path(page)))
        rules = [f".s{level} {{ background: {colour} }}" for level, colour in enumerate(PAGE_COLOURS)]
        rules += [".s4, .s5 { color: #fff }", ".s5 { font-weight: bold; text-decoration: underline }"]
        legend = " ".join(f'<span class="s{level}"> {label} </span>' for level, label in enumerate(LABELS))
        self._write(PAGE_HEAD.format(title=_shown(title), rules="\n".join(rules), legend=legend))

    def add(self, scores: Sequence[TokenScores]) -> None:
        """Write the next part of a line."""
        self._nats += float(scores[0].nats.sum())
        self._num_chars += len(scores[0].text) + scores[0].num_returns
        for text, bits in surprisals(self._tokenizer, scores[0]):
            self._write(f'<span class="s{level_of(bits)}" title="{bits:.2f}">{_shown(text)}</span>')

    def end_line(self) -> None:
        """End the line."""
        self._write("\n")

    def end(self) -> None:
        """Write the score of the whole text, end the page and put it in its place."""
        bits = self._nats / math.log(2) / max(1, self._num_chars)
        score = f"{self._num_chars:,} characters, {bits:.4f} bits per character"
        self._write(f"</pre>\n<p>{score}</p>\n</html>\n")
        with self._errors():
            self._stack.close()

    def close(self) -> None:
        """Delete the page unless it has ended."""
        error = InterruptedError("the page is not complete")
        with suppress(OSError):  # a full disk, which _write has reported; the buffer cannot be written either
            self._stack.__exit__(type(error), error, None)

    def _write(self, text: str) -> None:
        with self._errors():
            self._file.write(text.encode("utf-8"))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CharlmError(
                f"page {self._page}: cannot be written ({error.strerror}); nothing was changed", fields=["page"]
            ) from None


def _shown(text: str) -> str:
    """Return a text in a form that a page can show; tabs are kept."""
    return html.escape("".join(visible(char) if char != "\t" else char for char in text))


def _coloured(text: str, level: int) -> str:
    style = TERMINAL_STYLES[level]
    return f"\x1b[{style}m{text}\x1b[0m" if text and style else text


def _num_columns(char: str) -> int:
    """Return the number of terminal columns of a character: 0 for marks on the character before it, 2 for wide ones."""
    if unicodedata.category(char) in ("Mn", "Me") or char in JOINERS or char in MEDIAL_JAMO:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
