"""Views of `charlm score` that print one row per token or per word, as a table with a header or as JSON.

The table is what `read.delim` of R and `read_csv(sep="\t")` of pandas expect: tabs between the columns, and quotation
marks around a text that contains one. Control characters and backslashes of a text are escaped, so that every row is
one line.

This module imports NumPy. Import it after the number of threads has been set.
"""

import csv
import io
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import NamedTuple

from charlm.cli.score_inputs import Row
from charlm.cli.score_views import View
from charlm.cli.streams import write_text
from charlm.engine.scores import TokenScores
from charlm.engine.word_scores import word_scores
from charlm.text.printable import escape_controls
from charlm.text.spans import token_texts
from charlm.text.tokenizer import UNKNOWN_ID, Tokenizer

UNITS = {"bits": 1 / math.log(2), "nats": 1.0}
"""Units of surprisal by name: factors by which nats are multiplied."""

Value = str | int | float
Values = tuple[Value, ...]


class TableWriter:
    """Writer of rows with named columns to standard output.

    Args:
        columns: Names of the columns.
        header: Whether a table begins with a header; JSON has the names in every row.
        as_json: Whether to print JSON.
    """

    def __init__(self, columns: Sequence[str], *, header: bool, as_json: bool) -> None:
        self._columns = columns
        self._as_json = as_json
        if header and not as_json:
            self._write_table([tuple(columns)])

    def write(self, rows: Iterable[Values]) -> None:
        """Write rows. Texts in them are escaped in a table."""
        if self._as_json:
            for row in rows:
                sys.stdout.write(json.dumps(dict(zip(self._columns, row, strict=True))) + "\n")
        else:
            self._write_table([tuple(map(_cell, row)) for row in rows])

    def _write_table(self, rows: Iterable[Values]) -> None:
        table = io.StringIO(newline="")
        csv.writer(table, "excel-tab", lineterminator="\n").writerows(rows)
        write_text(table.getvalue())


class TokenTable(View):
    """View that prints one row per token.

    Args:
        tokenizer: The model's tokenizer.
        unit: Unit of surprisal and entropy, one of `UNITS`.
        surprisal: Name of the column of the surprisal.
        with_entropy: Whether the scores have the entropy of each prediction.
        header: Whether the table begins with a header.
        as_json: Whether to print JSON.
    """

    def __init__(
        self, tokenizer: Tokenizer, unit: str, surprisal: str, *, with_entropy: bool, header: bool, as_json: bool
    ) -> None:
        self._tokenizer = tokenizer
        self._factor = UNITS[unit]
        entropy = ["entropy"] if with_entropy else []
        columns = ["file", "line", "token_number", "token", surprisal, *entropy, "unknown", "start"]
        self._writer = TableWriter(columns, header=header, as_json=as_json)

    def start_line(self, row: Row) -> None:
        """Start a line."""
        self._row = row
        self._number = 1  # of the next token
        self._start = 0  # position in the line at which it begins

    def add(self, scores: Sequence[TokenScores]) -> None:
        """Print the tokens of the next part of a line."""
        (part,) = scores
        self._writer.write(self._rows(part))

    def _rows(self, part: TokenScores) -> Iterator[Values]:
        texts = token_texts(self._tokenizer, part.text, part.ids.tolist())
        entropies: Iterable[Values] = repeat(())
        if part.entropy_nats is not None:
            entropies = zip((part.entropy_nats * self._factor).tolist(), strict=True)
        surprisals = (part.nats * self._factor).tolist()
        for text, token_id, surprisal, entropy in zip(texts, part.ids.tolist(), surprisals, entropies, strict=False):
            unknown = int(token_id == UNKNOWN_ID)
            yield self._row.source, self._row.number, self._number, text, surprisal, *entropy, unknown, self._start
            self._number += 1
            self._start += len(text)


class _Word(NamedTuple):
    """Row of a `WordTable`."""

    file: str
    line: int
    word_number: int
    word: str
    surprisal: float
    characters: int
    unknown: int
    start: int

    def after(self, space: "_Word", *, is_space: bool) -> "_Word":
        """Return this row with whitespace before it; if this is whitespace too, both become one row."""
        row = self._replace(
            surprisal=space.surprisal + self.surprisal,
            characters=space.characters + self.characters,
            unknown=space.unknown + self.unknown,
        )
        return row._replace(word=space.word + self.word, start=space.start) if is_space else row


class WordTable(View):
    """View that prints one row per word, and one for the end of each line; see `charlm.engine.word_scores`.

    Args:
        tokenizer: The model's tokenizer.
        unit: Unit of surprisal, one of `UNITS`.
        surprisal: Name of the column of the surprisal.
        header: Whether the table begins with a header.
        as_json: Whether to print JSON.
    """

    def __init__(self, tokenizer: Tokenizer, unit: str, surprisal: str, *, header: bool, as_json: bool) -> None:
        self._tokenizer = tokenizer
        self._factor = UNITS[unit]
        columns = [surprisal if name == "surprisal" else name for name in _Word._fields]
        self._writer = TableWriter(columns, header=header, as_json=as_json)

    def start_line(self, row: Row) -> None:
        """Start a line."""
        self._row = row
        self._number = 1  # of the next word
        self._start = 0  # position of the next part in the line
        self._space: _Word | None = None  # whitespace after the last word; the next part may begin with another word

    def add(self, scores: Sequence[TokenScores]) -> None:
        """Print the words of the next part of a line."""
        (part,) = scores
        self._writer.write(self._words(part))

    def end_line(self) -> None:
        """Print the row of the line end."""
        if self._space is not None:
            self._writer.write([self._space])

    def _words(self, part: TokenScores) -> Iterator[_Word]:
        for score in word_scores(self._tokenizer, part):
            word = _Word(
                *(self._row.source, self._row.number, self._number),
                word=part.text[score.start : score.end],
                surprisal=score.nats * self._factor,
                characters=score.end - score.begin + (part.num_returns if score.is_space else 0),
                unknown=score.num_unknown,
                start=self._start + score.start,
            )
            if self._space is not None:
                word = word.after(self._space, is_space=score.is_space)
            self._space = word if score.is_space else None
            if not score.is_space:
                yield word
                self._number += 1
        self._start += len(part.text)


def _cell(value: Value) -> Value:
    """Return a value in the form that a table has: numbers with six decimals, text without control characters."""
    match value:
        case float():
            return f"{value:.6f}"
        case str():
            return escape_controls(value)
    return value
