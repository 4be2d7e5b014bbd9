"""Reading of texts line by line, as they arrive."""

from collections.abc import Iterable, Iterator, Sequence

from charlm.text.decoder import Decoding
from charlm.text.line_ends import RETURN, join_line_ends
from charlm.text.sources import Report, ignore, open_texts

BLOCK_BYTES = 1 << 18
"""Maximum number of bytes read at a time: few enough to show results soon, enough lines to score them in batches."""

LONG_LINE = 1 << 16
"""Minimum length, in characters, of a line that is returned in parts."""


class Lines(list[str]):
    """Lines that have arrived together.

    Attributes:
        ends_mid_line: Whether the last line is incomplete. If so, the next block begins with more of it.
        with_return: Indices of the lines whose newline has a carriage return directly before it in the original text.
            The lines themselves do not have it.
        source: Name of the text: a file name, a named corpus or `-`.
        first_number: Number of the first line in its text, from 1.
    """

    ends_mid_line = False
    with_return: frozenset[int] = frozenset()
    source = ""
    first_number = 1


def read_lines(
    specs: Sequence[str], *, encoding: str = "utf-8", errors: str = "strict", report: Report = ignore
) -> Iterator[Lines]:
    """Read texts line by line. Lines of a pipe are returned as soon as they are written to it.

    NUL characters are allowed, unlike in texts for training.

    Args:
        specs: Texts, as for `charlm.text.corpus.CorpusReader`.
        encoding: Encoding of the texts.
        errors: Treatment of bytes that are not valid in the encoding.
        report: Receives a sentence about files of a folder that are skipped.

    Yields:
        Blocks of lines with their newlines. The last line of the last text may have none. A line of `LONG_LINE`
        characters or more may be returned in parts, so that memory does not limit its length.

    Raises:
        CorpusError: If a text is missing or unreadable, or its bytes are not valid in the encoding.
        ConfigError: If the encoding is unknown.
    """
    unfinished: Lines | None = None  # the end of a text, which gets a newline if another text follows
    for _, blocks in read_texts(specs, encoding=encoding, errors=errors, report=report):
        for lines in blocks:
            if unfinished is not None:
                unfinished[-1] += "\n"
                yield unfinished
                unfinished = None
            if lines.ends_mid_line or lines[-1].endswith("\n"):
                yield lines
            else:
                unfinished = lines
    if unfinished is not None:
        yield unfinished


def read_texts(
    specs: Sequence[str], *, encoding: str = "utf-8", errors: str = "strict", report: Report = ignore
) -> Iterator[tuple[str, Iterator[Lines]]]:
    """Read texts line by line, and yield the name of each text with its lines; see `read_lines`.

    Read all lines of a text before the next text is read. The last line of a text may have no newline.
    """
    decoding = Decoding(encoding=encoding, errors=errors, allow_nul=True)
    for spec in specs:
        for source in open_texts(spec, decoding, report):
            yield source.name, _numbered(source.name, split_lines(source.read(BLOCK_BYTES)))


def _numbered(source: str, blocks: Iterable[Lines]) -> Iterator[Lines]:
    """Yield the lines of a text, with the name of the text and the numbers of the lines."""
    number = 1
    for lines in blocks:
        lines.source, lines.first_number = source, number
        number += len(lines) - lines.ends_mid_line
        yield lines


def split_lines(texts: Iterable[str]) -> Iterator[Lines]:
    """Split a text that arrives in blocks into lines; see `read_lines`."""
    rest = ""
    partial = False  # whether a part of the line that `rest` belongs to has been returned
    for text in join_line_ends(texts):
        *complete, rest = (rest + text).split("\n")
        lines = Lines(line + "\n" for line in complete)
        if RETURN in text:
            lines.with_return = frozenset(index for index, line in enumerate(complete) if line.endswith(RETURN))
            for index in lines.with_return:
                lines[index] = complete[index][:-1] + "\n"
        partial = partial and not complete
        if cut := _part_length(rest, partial=partial):
            lines.append(rest[:cut])
            rest, partial = rest[cut:], True
        if lines:
            lines.ends_mid_line = partial
            yield lines
    if rest or partial:
        yield Lines([rest])


def _part_length(rest: str, *, partial: bool) -> int:
    """Return the number of characters of an incomplete line to return now; 0 to wait for more."""
    is_long = len(rest) >= LONG_LINE
    if not is_long and not partial:
        return 0
    cut = rest.rfind(" ")  # a cut between words, if possible
    if cut > 0:
        return cut
    return len(rest) if is_long else 0
