"""Inputs of `charlm score`: blocks of texts to score, with the row of the output that each of them belongs to."""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from charlm.errors import CorpusError
from charlm.text.lines import Lines
from charlm.text.records import Records, Table


class Row(NamedTuple):
    """Row of the output, and the input that it belongs to.

    Attributes:
        source: Name of the text.
        number: Number of its first line in the text, from 1.
        original: The record that it belongs to, or None if it belongs to the scored text alone.
        num_context_chars: Number of characters at the beginning of the scored text that do not count.
    """

    source: str
    number: int
    original: str | None = None
    num_context_chars: int = 0


class Block(NamedTuple):
    """Texts that have arrived together.

    Attributes:
        lines: The texts, each with its newline.
        rows: The row of each text, in the same order.
        header: Header of the table that contains the texts, or None.
        format: Format of that table, one of `charlm.config.TABLE_FORMATS`.
    """

    lines: Lines
    rows: Iterable[Row]
    header: str | None = None
    format: str = "tsv"


@dataclass(frozen=True)
class Context:
    """Context that precedes every text.

    Attributes:
        text: The context, or None if it is the second field of each record.
        separator: Text between the context of a record and the text; None for a space where words need one.
    """

    text: str | None
    separator: str | None = None

    def before(self, text: str, record_context: str) -> str:
        """Return what precedes the text of a record, whose second field is `record_context`."""
        if self.text is not None:
            return self.text
        separator = _space_between(record_context, text) if self.separator is None else self.separator
        return record_context + separator


CLOSING_MARKS = frozenset(".,;:!?)]}")
"""Marks without a space before them."""


def _space_between(context: str, text: str) -> str:
    """Return a space if two texts need one between them: `The king is` and `a potato`, but not `The king` and `, who`.

    Ideographs, kana and fullwidth marks need none.
    """
    if not context or not text:
        return ""
    if context[-1].isspace() or text[0].isspace() or text[0] in CLOSING_MARKS:
        return ""
    return "" if {unicodedata.east_asian_width(char) for char in (context[-1], text[0])} & {"W", "F"} else " "


def line_blocks(blocks: Iterable[Lines], context: Context | None = None) -> Iterator[Block]:
    """Yield each line as a text of its own. A long line continues in the next block."""
    prefix = "" if context is None else context.text or ""
    continues = False
    for lines in blocks:
        rows = (Row(lines.source, number, None, len(prefix)) for number in count(lines.first_number))
        if prefix:
            lines[:] = [line if continues and not index else prefix + line for index, line in enumerate(lines)]
            continues = lines.ends_mid_line
        yield Block(lines, rows)


def record_blocks(
    texts: Iterable[tuple[str, Iterable[Lines]]], table: Table, context: Context | None = None
) -> Iterator[Block]:
    """Yield the fields of records: one text per record, after its context if there is one, or a pair of texts."""
    for source, blocks in texts:
        for records in table.records(source, blocks):
            yield _block_of(records, context)


def pair_blocks(texts: Iterable[tuple[str, Iterable[Lines]]]) -> Iterator[Block]:
    """Yield pairs of texts, which are separated by a tab on each line.

    Raises:
        CorpusError: If a line does not have two columns.
    """
    for source, blocks in texts:
        for records in Table(("1",), "plain").records(source, blocks):
            for index, record in enumerate(records):
                pair = tuple(record.original.split("\t"))
                if len(pair) != 2:
                    raise CorpusError(
                        f"{source}: line {record.number:,}: not two texts separated by a tab; for a table, name two "
                        "columns with `fields`",
                        fields=["fields"],
                    )
                records[index] = record._replace(texts=pair)
            yield _block_of(records, None)


def _block_of(records: Records, context: Context | None) -> Block:
    """Return the texts of records."""
    lines, rows = Lines(), []
    for record in records:
        lines.source = record.source
        texts: tuple[str, ...] = record.texts
        prefix = ""
        if context is not None:
            texts = record.texts[:1]
            prefix = context.before(texts[0], record.texts[-1])
        for text in texts:
            lines.append(f"{prefix}{text}\n")
            rows.append(Row(record.source, record.number, record.original, len(prefix)))
    return Block(lines, rows, records.header, records.format)
