"""Views of `charlm score` that print scored lines as rows of columns, and the totals of a text.

This module imports NumPy. Import it after the number of threads has been set.
"""

import json
import math
import sys
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import IO

import numpy as np

from charlm.cli.score_columns import BITS_PER_CHAR, COLUMNS, TEXT, Column, LineScores, Mode, total_figures
from charlm.cli.score_inputs import Block, Row
from charlm.cli.streams import write_text
from charlm.engine.continuations import continuation
from charlm.engine.line_scores import EMPTY, LineScorer, ScoredPart, score_stream
from charlm.engine.scorer import Scorer
from charlm.engine.scores import Score, TokenScores
from charlm.errors import CorpusError
from charlm.text.printable import escape_controls
from charlm.text.records import append_to_header, append_to_record

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


class View:
    """Base class of views, which print scored lines. A long line arrives in parts."""

    nothing_passed = False
    """True if a filter is set and no line has passed it."""

    summary = ""
    """Note to print after the last line."""

    def start_block(self, block: Block) -> None:
        """Start a block of lines."""

    def start_line(self, row: Row) -> None:
        """Start a line."""

    def add(self, scores: Sequence[TokenScores]) -> None:
        """Add the next part of a line, scored by each model."""
        raise NotImplementedError

    def end_line(self) -> None:
        """End the line."""

    def end(self) -> None:
        """End the output."""

    def close(self) -> None:
        """Close temporary files, also after an error."""


@dataclass(frozen=True, kw_only=True)
class ScoreFilter:
    """Conditions under which a line is printed.

    Attributes:
        above: Lower bound of its score, itself excluded, or None.
        below: Upper bound of its score, itself excluded, or None.
        quantile: Share of the lines to print, those with the best scores, above 0 and up to 1; or None.
    """

    above: float | None = None
    below: float | None = None
    quantile: float | None = None

    def passes(self, number: float) -> bool:
        """Return whether a number is in the range."""
        return (self.above is None or number > self.above) and (self.below is None or number < self.below)


class RowView(View):
    """View that prints one row of columns, or one JSON object, per line.

    Args:
        columns: The columns.
        score_filter: Conditions on the number in the first column with numbers, or on the bits per character if there
            is no such column.
        as_json: Whether to print JSON.
        models: Names of the models.
    """

    def __init__(
        self, columns: Sequence[Column], score_filter: ScoreFilter, *, as_json: bool, models: Sequence[str] = ()
    ) -> None:
        self._columns = columns
        self._values = [column for column in columns if column.value is not None]
        self._filter_column = next((column for column in columns if column.is_number), COLUMNS[BITS_PER_CHAR])
        self._score_filter = score_filter
        self._best = None if score_filter.quantile is None else BestRows(score_filter.quantile)
        self._out = write_text if self._best is None else self._best.write
        self._write = self._write_json if as_json else self._write_row
        self._models = models
        self._scores: list[Score] = []
        self._text = _Spool()
        self._num_lines = self._num_positive = 0
        self.nothing_passed = score_filter != ScoreFilter()

    def start_line(self, row: Row) -> None:
        """Start a line."""
        self._row = row
        self._scores = []
        self._text.clear()

    def add(self, scores: Sequence[TokenScores]) -> None:
        """Add the next part of a line, scored by each model."""
        added = [part.score for part in scores]
        self._scores = [old + new for old, new in zip(self._scores, added, strict=True)] if self._scores else added
        first = scores[0]
        self._line_end_nats = float(first.nats[-1]) if first.text.endswith("\n") else 0.0
        if self._row.original is None:
            self._text.write(first.text.removesuffix("\n"))

    def end_line(self) -> None:
        """Print the row if it passes the filter."""
        if self._row.original is not None:
            self._text.write(self._row.original)
        line = LineScores(self._scores, self._row.source, self._row.number, self._line_end_nats, self._models)
        number = self._filter_column.number(line)
        self._num_lines += 1
        self._num_positive += number > 0
        if self._score_filter.passes(number):
            self.nothing_passed = False
            self._write(line)
            if self._best is not None:
                self._best.end_row(-number if self._filter_column.best_is_high else number)

    def end(self) -> None:
        """End the output."""
        if self._best is not None:
            self._best.print()
        if self._filter_column.mode is Mode.PAIRS and self._num_lines:
            share = self._num_positive / self._num_lines
            self.summary = (
                f"the first text is more probable in {self._num_positive:,} of {self._num_lines:,} pairs ({share:.1%})"
            )

    def close(self) -> None:
        """Close temporary files."""
        self._text.clear()
        if self._best is not None:
            self._best.close()

    def _write_row(self, line: LineScores) -> None:
        for index, column in enumerate(self._columns):
            if index:
                self._out("\t")
            if column.value is None:
                for part in self._text.parts():
                    # A tab in the last column cannot be taken for the end of a column.
                    self._out(part if index == len(self._columns) - 1 else escape_controls(part))
            else:
                self._out(column.plain_value(line))
        self._out("\n")

    def _write_json(self, line: LineScores) -> None:
        values = {column.json_key: column.json_value(line) for column in self._values}
        if len(self._values) == len(self._columns):
            self._out(json.dumps(values) + "\n")
            return
        # The text comes last, so that it can be written in parts between its quotation marks.
        self._out(json.dumps({**values, TEXT: ""})[: -len('"}')])
        for part in self._text.parts():
            self._out(json.dumps(part)[1:-1])
        self._out('"}\n')


class RecordView(RowView):
    """View that prints each record as it is in the input, with columns after its own columns.

    Args:
        columns: The columns to append.
        score_filter: As for `RowView`.
        models: Names of the models.
    """

    def __init__(self, columns: Sequence[Column], score_filter: ScoreFilter, *, models: Sequence[str] = ()) -> None:
        super().__init__(columns, score_filter, as_json=False, models=models)
        self._write = self._write_record
        self._first: Block | None = None

    def start_block(self, block: Block) -> None:
        """Print the header of the first table.

        Raises:
            CorpusError: If a later table has another header or format.
        """
        first, self._first = self._first, self._first or block
        if first is None:
            if block.header is not None:
                names = [column.json_key for column in self._columns]
                write_text(append_to_header(block.header, block.format, names) + "\n")
        elif (block.header, block.format) != (first.header, first.format):
            source = next((row.source for row in block.rows), "")
            raise CorpusError(f"{source}: header or format differs from that of the first text; score it by itself")

    def _write_record(self, line: LineScores) -> None:
        assert self._first is not None, "a block has been started"
        assert self._row.original is not None, "every row of a table has a record"
        as_json = self._first.format == "jsonl"
        columns = {
            column.json_key: column.json_value(line) if as_json else column.plain_value(line)
            for column in self._columns
        }
        self._out(append_to_record(self._row.original, self._first.format, columns) + "\n")


class TotalView(View):
    """View that prints the figures of a text whose lines are scored independently.

    Args:
        as_json: Whether to print JSON.
        adaptive: Whether the scores are adaptive.
    """

    def __init__(self, *, as_json: bool, adaptive: bool) -> None:
        self._as_json = as_json
        self._adaptive = adaptive
        self._scores: list[Score] = []

    def add(self, scores: Sequence[TokenScores]) -> None:
        """Add the next part of a line, scored by each model."""
        added = [part.score for part in scores]
        self._scores = [old + new for old, new in zip(self._scores, added, strict=True)] if self._scores else added

    def end(self) -> None:
        """Print the figures.

        Raises:
            CorpusError: If the text is empty.
        """
        if not self._scores:
            raise CorpusError(EMPTY)
        print_figures(self._scores, as_json=self._as_json, adaptive=self._adaptive)


def show_lines(scorers: Sequence[Scorer], blocks: Iterable[Block], view: View, *, texts_per_row: int = 1) -> Counts:
    """Score lines as they arrive and show them. Output is flushed after each block.

    Args:
        scorers: The models.
        blocks: The lines. The last line of a block may continue in the next block.
        view: View that prints the lines.
        texts_per_row: Number of consecutive texts that are shown in one row: 2 for pairs.
    """
    line_scorer = LineScorer(scorers)
    with closing(view):
        for block in blocks:
            view.start_block(block)
            parts = zip(block.rows, line_scorer.score_block(block.lines), strict=False)
            for row, part in _in_rows(parts, texts_per_row):
                _show_part(view, row, part, scorers)
            sys.stdout.flush()
        view.end()
    return Counts(num_tokens=line_scorer.num_tokens, num_unknown=line_scorer.num_unknown)


def _show_part(view: View, row: Row, part: ScoredPart, scorers: Sequence[Scorer]) -> None:
    """Show a line or a part of a line."""
    scores = part.scores
    if part.starts_line:
        view.start_line(row)
        if row.num_context_chars:
            scores = [
                continuation(scorer.tokenizer, score, row.num_context_chars)
                for scorer, score in zip(scorers, scores, strict=True)
            ]
    view.add(scores)
    if part.ends_line:
        view.end_line()


def _in_rows(parts: Iterable[tuple[Row, ScoredPart]], texts_per_row: int) -> Iterator[tuple[Row, ScoredPart]]:
    """Join the scores of consecutive texts that belong to the same row."""
    if texts_per_row == 1:
        yield from parts
        return
    texts = iter(parts)
    while group := list(islice(texts, texts_per_row)):
        yield group[0][0], ScoredPart([scores for _, part in group for scores in part.scores])


def show_total(scorers: Sequence[Scorer], blocks: Iterable[Block], *, as_json: bool, adaptive: bool) -> Counts:
    """Score all text as one stream and print its figures.

    Args:
        scorers: The models.
        blocks: The text.
        as_json: Whether to print JSON.
        adaptive: Whether the scores are adaptive.

    Raises:
        CorpusError: If the text is empty.
    """
    scores = score_stream(scorers, (block.lines for block in blocks))
    print_figures(scores, as_json=as_json, adaptive=adaptive)
    return Counts(num_tokens=scores[0].num_tokens, num_unknown=scores[0].num_unknown)


def print_figures(scores: Sequence[Score], *, as_json: bool, adaptive: bool) -> None:
    """Print the figures of a whole text, scored by each model."""
    figures = total_figures(len(scores), adaptive=adaptive)
    if as_json:
        sys.stdout.write(json.dumps({figure.json_key: figure.json_value(scores) for figure in figures}) + "\n")
    else:
        sys.stdout.writelines(f"{figure.name}\t{figure.plain_value(scores)}\n" for figure in figures)


class BestRows:
    """Rows of the output of which only the best are printed, in their order.

    The rows are written to a temporary file, and their keys are kept in memory, with 16 bytes per row. When all keys
    are known, the file is read and the best rows are printed. Therefore, each text is scored only once, and the choice
    is exact.

    Args:
        share: Share of the rows to print, above 0 and up to 1.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogatepass", newline="")  # noqa: SIM115
        self._keys, self._lengths = array("d"), array("q")
        self._length = 0  # of the current row in characters

    def write(self, text: str) -> None:
        """Write a part of a row."""
        self._file.write(text)
        self._length += len(text)

    def end_row(self, key: float) -> None:
        """End a row; the rows with the lowest keys are the best. A key that is not a number is the worst."""
        self._keys.append(math.inf if math.isnan(key) else key)
        self._lengths.append(self._length)
        self._length = 0

    def print(self) -> None:
        """Print the best rows: their share of all rows, rounded up. Of equal rows, the first are printed."""
        keys = np.array(self._keys)
        best = np.zeros(len(keys), dtype=np.bool_)
        best[np.argsort(keys, kind="stable")[: math.ceil(round(self._share * len(keys), 6))]] = True
        self._file.seek(0)
        for length, is_best in zip(self._lengths, best.tolist(), strict=True):
            row = self._file.read(length)
            if is_best:
                write_text(row)

    def close(self) -> None:
        """Close the temporary file."""
        self._file.close()


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
