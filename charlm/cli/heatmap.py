"""Paints each character by its surprise: in the terminal, in plain text, or as a page.

The cost of a word is shared out evenly among its characters, so that models of words paint as those of characters do.
"""

import html
import math
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from charlm.engine.scorer import token_texts
from charlm.errors import ConfigError

if TYPE_CHECKING:
    from charlm.engine.scorer import Costs
    from charlm.text.tokenizer import Tokenizer

LEVELS = (1, 2, 4, 6, 9)
"""Bits a character at which the paint changes: an untrained model of 64 characters has 6 everywhere."""

LABELS = ("below 1", "1-2", "2-4", "4-6", "6-9", "9 or more")
STYLES = ("", "30;48;5;230", "30;48;5;222", "30;48;5;215", "97;48;5;160", "1;4;97;48;5;90")
"""Of each level, as a terminal has them: paler to darker, and the last bold and underlined too."""

PAGE_COLOURS = ("transparent", "#fff7d6", "#fddc8c", "#fbb061", "#d7301f", "#7a0177")

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>charlm: surprise</title>
<style>
body {{ font: 16px/1.6 ui-monospace, monospace; max-width: 60em; margin: 2em auto; padding: 0 1em;
  background: #fff; color: #111 }}
pre {{ font: inherit; white-space: pre-wrap; overflow-wrap: anywhere }}
{rules}
</style>
<p>Surprise, in bits a character: {legend}</p>
<pre>
"""


def cells(tokenizer: "Tokenizer", costs: "Costs") -> Iterator[tuple[str, float]]:
    """Each token's text and its surprise in bits a character."""
    for text, nats in zip(token_texts(tokenizer, costs), costs.nats.tolist(), strict=True):
        yield text, nats / math.log(2) / max(1, len(text))


def level(bits: float) -> int:
    """The paint for a surprise, 0 to 5."""
    return sum(bits >= bound for bound in LEVELS)


def visible(char: str) -> str:
    """A character as it can be shown: control characters by their pictures, lone surrogates by U+FFFD."""
    point = ord(char)
    if point < 0x20:
        return "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}" if char == "\n" else chr(0x2400 + point)
    if point == 0x7F:
        return "\N{SYMBOL FOR DELETE}"
    return "\N{REPLACEMENT CHARACTER}" if unicodedata.category(char) in ("Cc", "Cs") else char


class ColourView:
    """Paints lines with a terminal's colours.

    Args:
        tokenizer: The model's.
    """

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._tokenizer = tokenizer
        legend = " ".join(_painted(f" {label} ", place) for place, label in enumerate(LABELS))
        sys.stdout.write(f"bits a character: {legend}\n")

    def add(self, costs: "Sequence[Costs]") -> None:
        """Paint the next part of a line."""
        run, painted = "", 0
        for text, bits in cells(self._tokenizer, costs[0]):
            now = level(bits)
            if now != painted:
                sys.stdout.write(_painted(run, painted))
                run, painted = "", now
            run += "".join(map(visible, text))
        sys.stdout.write(_painted(run, painted))

    def end_line(self) -> None:
        """End the line."""
        sys.stdout.write("\n")

    def end(self) -> None:
        """There are no more lines."""


class PlainView:
    """Writes lines with a digit under each character: its bits, rounded down.

    Args:
        tokenizer: The model's.
        width: Columns after which a line goes on below.
    """

    def __init__(self, tokenizer: "Tokenizer", width: int) -> None:
        self._tokenizer = tokenizer
        self._width = max(2, width)
        self._clear()
        sys.stdout.write("below each character: its bits; a dot for less than 1, 9 for 9 or more\n")

    def _clear(self) -> None:
        self._above, self._below, self._used = "", "", 0

    def add(self, costs: "Sequence[Costs]") -> None:
        """Take in the next part of a line."""
        for text, bits in cells(self._tokenizer, costs[0]):
            digit = "." if bits < 1 else str(min(9, int(bits)))
            for char in map(visible, text):
                columns = _columns(char)
                if self._used + columns > self._width:
                    self.end_line()
                self._above += char
                self._below += digit.ljust(columns)[:columns]
                self._used += columns

    def end_line(self) -> None:
        """Write what has come together."""
        sys.stdout.write(f"{self._above}\n{self._below}\n")
        self._clear()

    def end(self) -> None:
        """There are no more lines."""


class PageView:
    """Writes a page that stands alone; pointing at a token tells its surprise.

    Args:
        tokenizer: The model's.
        path: Where it goes.

    Raises:
        ConfigError: If it cannot be written there.
    """

    def __init__(self, tokenizer: "Tokenizer", path: str) -> None:
        self._tokenizer = tokenizer
        try:
            self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed by `end`
        except OSError as error:
            raise ConfigError(f"--html {path}: cannot be written ({error.strerror})") from None
        rules = [f".s{place} {{ background: {colour} }}" for place, colour in enumerate(PAGE_COLOURS)]
        rules += [".s4, .s5 { color: #fff }", ".s5 { font-weight: bold; text-decoration: underline }"]
        legend = " ".join(f'<span class="s{place}"> {label} </span>' for place, label in enumerate(LABELS))
        self._file.write(PAGE.format(rules="\n".join(rules), legend=legend))

    def add(self, costs: "Sequence[Costs]") -> None:
        """Write the next part of a line."""
        for text, bits in cells(self._tokenizer, costs[0]):
            shown = html.escape("".join(visible(char) if char != "\t" else char for char in text))
            self._file.write(f'<span class="s{level(bits)}" title="{bits:.2f}">{shown}</span>')

    def end_line(self) -> None:
        """End the line."""
        self._file.write("\n")

    def end(self) -> None:
        """End the page."""
        self._file.write("</pre>\n</html>\n")
        self._file.close()


def _painted(text: str, place: int) -> str:
    return f"\x1b[{STYLES[place]}m{text}\x1b[0m" if text and STYLES[place] else text


def _columns(char: str) -> int:
    """Columns that a character takes in a terminal."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
