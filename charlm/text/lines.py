"""Reads texts line by line, as they arrive."""

import codecs
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from charlm.errors import CorpusError
from charlm.text.sources import STDIN, check_encoding, open_bytes, open_texts, read_block

LINE_BYTES = 1 << 17
"""Lines are read in smaller ones: what is done with them shows soon, and is done with many."""

LONG_LINE = 1 << 16
"""Characters from which on a line is given in parts."""


class Lines(list[str]):
    """Lines that have arrived together.

    Attributes:
        goes_on: Whether the last of them is only begun: the next block begins with more of it.
    """

    goes_on = False


def read_lines(specs: Sequence[str], *, encoding: str = "utf-8", errors: str = "strict") -> Iterator[Lines]:
    """Read texts line by line, as they arrive: a pipe's lines come as soon as they are written to it.

    Args:
        specs: As for `Texts`.
        encoding: How bytes become characters.
        errors: What to do with bytes that don't.

    Yields:
        The whole lines that have arrived, with their newlines; the last of a text may lack it. A line of more than
        `LONG_LINE` characters may come in parts, so that a line of any length can be read.

    Raises:
        CorpusError: As `read_corpus` does, but for binary and empty texts, which have lines or none.
    """
    check_encoding(encoding)
    for spec in specs:
        path = Path(spec)
        if spec == STDIN:
            yield from _lines(sys.stdin.buffer, "standard input", encoding, errors)
        elif path.exists() and not path.is_dir():
            with open_bytes(path) as file:
                yield from _lines(file, spec, encoding, errors)
        else:
            for source in open_texts(spec, encoding, errors):
                yield Lines(io.StringIO("".join(source.read()), newline="\n").readlines())


def _lines(file: BinaryIO, source: str, encoding: str, errors: str) -> Iterator[Lines]:
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(errors), translate=True)
    rest, number, data, began = "", 1, b"first", False
    block = Lines()
    while data:
        data = read_block(file, source, LINE_BYTES)
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise CorpusError(
                f"{source}: not {encoding} after line {number:,} ({error.reason}); give --encoding latin-1, say, "
                "or --errors replace"
            ) from None
        except UnicodeError as error:
            raise CorpusError(f"{source}: not {encoding} ({error}); give another --encoding") from None
        if text and not began:
            text, began = text.removeprefix("\ufeff"), True
        *lines, rest = (rest + text).split("\n")
        number += len(lines)
        went_on, block = block.goes_on, Lines(line + "\n" for line in lines)
        block.goes_on = bool(data) and (len(rest) >= LONG_LINE or (went_on and not lines))
        if block.goes_on:
            cut = rest.rfind(" ")  # between words, where there are any
            cut = cut if cut > 0 else len(rest) if len(rest) >= LONG_LINE else 0
            block.append(rest[:cut])
            rest = rest[cut:]
        elif not data and (rest or (went_on and not lines)):
            block.append(rest)
        if block:
            yield block
