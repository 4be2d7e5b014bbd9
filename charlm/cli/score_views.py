"""Views of `charlm score` that print scored lines as rows of columns, and the totals of a text.

This module imports NumPy. Import it after the number of threads has been set.
"""

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, NamedTuple

from charlm.cli.score_columns import BITS_PER_CHAR, COLUMNS, TEXT, Column, total_figures
from charlm.cli.streams import write_text
from charlm.engine.line_scores import LineScorer, score_stream
from charlm.engine.scorer import Scorer
from charlm.engine.scores import Score, TokenScores
from charlm.text.lines import Lines
from charlm.text.printable import escape_controls

MAX_MEMORY_CHARS = 2**20
"""Maximum number of characters of a line that are kept in memory until its score is known. A longer line is moved to a
temporary file."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Numbers of tokens.

    Attributes:
        num_tokens: Number of scored tokens.
        num_unknown: Number of scored tokens that are unknown to the first model.
    """

    num_tokens: int
    num_unknown: int


class Row(NamedTuple):
    """Origin of a line.

    Attributes:
        source: Name of the text that contains it.
        number: Its number in that text, from 1.
    """

    source: str
    number: int


class View:
    """Base class of views, which print scored lines. A long line arrives in parts."""

    nothing_passed = False
    """True if a filter is set and no line has passed it."""

    def start_line(self, row: Row) -> None:
        """Start a line."""

    def add(self, scores: Sequence[TokenScores]) -> None:
        """Add the next part of a line, scored by each model."""
        raise NotImplementedError

    def end_line(self) -> None:
        """End the line."""

    def end(self) -> None:
        """End the output."""


@dataclass(frozen=True, kw_only=True)
class ScoreFilter:
    """Range of scores. Only lines with a score in this range are printed.

    Attributes:
        above: Lower bound, itself excluded, or None.
        below: Upper bound, itself excluded, or None.
    """

    above: float | None = None
    below: float | None = None

    def passes(self, number: float) -> bool:
        """Return whether a number is in the range."""
        return (self.above is None or number > self.above) and (self.below is None or number < self.below)


class RowView(View):
    """View that prints one row of columns, or one JSON object, per line.

    Args:
        columns: The columns.
        score_filter: Range of the number in the first column with numbers, or of the bits per character if there is no
            such column.
        as_json: Whether to print JSON.
    """

    def __init__(self, columns: Sequence[Column], score_filter: ScoreFilter, *, as_json: bool) -> None:
        self._columns = columns
        self._numbers = [column for column in columns if column.value is not None]
        self._filter_column = self._numbers[0] if self._numbers else COLUMNS[BITS_PER_CHAR]
        self._score_filter = score_filter
        self._write = self._write_json if as_json else self._write_row
        self._scores: list[Score] = []
        self._text = _Spool()
        self.nothing_passed = score_filter != ScoreFilter()

    def add(self, scores: Sequence[TokenScores]) -> None:
        """Add the next part of a line, scored by each model."""
        added = [part.score for part in scores]
        self._scores = [old + new for old, new in zip(self._scores, added, strict=True)] if self._scores else added
        self._text.write(scores[0].text.removesuffix("\n"))

    def end_line(self) -> None:
        """Print the row if it passes the filter."""
        if self._score_filter.passes(self._filter_column.number(self._scores)):
            self.nothing_passed = False
            self._write()
        self._scores = []
        self._text.clear()

    def _write_row(self) -> None:
        out = sys.stdout
        for index, column in enumerate(self._columns):
            if index:
                out.write("\t")
            if column.value is None:
                for part in self._text.parts():
                    # A tab in the last column cannot be taken for the end of a column.
                    write_text(part if index == len(self._columns) - 1 else escape_controls(part))
            else:
                out.write(column.number_text(self._scores))
        out.write("\n")

    def _write_json(self) -> None:
        out = sys.stdout
        numbers = {column.json_key: column.json_number(self._scores) for column in self._numbers}
        if len(self._numbers) == len(self._columns):
            out.write(json.dumps(numbers) + "\n")
            return
        # The text comes last, so that it can be written in parts between its quotation marks.
        out.write(json.dumps({**numbers, TEXT: ""})[: -len('"}')])
        for part in self._text.parts():
            out.write(json.dumps(part)[1:-1])
        out.write('"}\n')


def show_lines(scorers: Sequence[Scorer], blocks: Iterable[Lines], view: View) -> Counts:
    """Score lines as they arrive and show them. Output is flushed after each block.

    Args:
        scorers: The models.
        blocks: The lines. The last line of a block may continue in the next block.
        view: View that prints the lines.
    """
    line_scorer = LineScorer(scorers)
    starts_line = True
    for block in blocks:
        for number, part in enumerate(line_scorer.score_block(block), block.first_number):
            if starts_line:
                view.start_line(Row(block.source, number))
            view.add(part.scores)
            if part.ends_line:
                view.end_line()
            starts_line = part.ends_line
        sys.stdout.flush()
    view.end()
    return Counts(num_tokens=line_scorer.num_tokens, num_unknown=line_scorer.num_unknown)


def show_total(scorers: Sequence[Scorer], blocks: Iterable[Lines], *, as_json: bool) -> Counts:
    """Score all text as one stream and print its figures.

    Args:
        scorers: The models.
        blocks: The text.
        as_json: Whether to print JSON.

    Raises:
        CorpusError: If the text is empty.
    """
    scores = score_stream(scorers, blocks)
    figures = total_figures(len(scorers))
    if as_json:
        sys.stdout.write(json.dumps({figure.json_key: figure.json_number(scores) for figure in figures}) + "\n")
    else:
        sys.stdout.writelines(f"{figure.name}\t{figure.number_text(scores)}\n" for figure in figures)
    return Counts(num_tokens=scores[0].num_tokens, num_unknown=scores[0].num_unknown)


class _Spool:
    """Text of a line, which is moved to a temporary file if it is long."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._num_chars = 0
        self._file: IO[str] | None = None

    def write(self, text: str) -> None:
        self._parts.append(text)
        self._num_chars += len(text)
        if self._num_chars > MAX_MEMORY_CHARS:
            if self._file is None:
                self._file = tempfile.TemporaryFile(  # noqa: SIM115 - `clear` closes it
                    "w+", encoding="utf-8", errors="surrogatepass", newline=""
                )
            self._file.write("".join(self._parts))
            self._parts, self._num_chars = [], 0

    def parts(self) -> Iterator[str]:
        if self._file is not None:
            self._file.seek(0)
            while part := self._file.read(MAX_MEMORY_CHARS):
                yield part
        yield "".join(self._parts)

    def clear(self) -> None:
        if self._file is not None:
            self._file.close()
        self._parts, self._num_chars, self._file = [], 0, None
