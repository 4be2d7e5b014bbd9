"""Reading of records: texts in the columns of a table, or in the fields of JSON lines.

Four formats are read. `csv` and `tsv` are tables whose columns are separated by commas or tabs. A column may be quoted
with `"`, and then contain separators, newlines and doubled quotation marks. `plain` has tabs and no quotation. `jsonl`
has one JSON object per line.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from charlm.config import TABLE_FORMATS
from charlm.errors import ConfigError, CorpusError
from charlm.text.lines import Lines, split_lines
from charlm.text.sources import Source

SEPARATORS = {"csv": ",", "tsv": "\t", "plain": "\t"}
"""Separators of columns by format."""

SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
"""Formats by the end of a file name. Other files are `tsv`."""

MAX_FIELD_CHARS = 1 << 24
"""Maximum length of a field in characters: a quotation mark without a partner cannot fill the memory."""


class Record(NamedTuple):
    """One record.

    Attributes:
        source: Name of the text that contains it.
        number: Number of its first line in that text, from 1.
        texts: Texts of the chosen fields. A newline within a field is replaced by a space.
        original: The record as it is in the text, without the newline at its end.
    """

    source: str
    number: int
    texts: tuple[str, ...]
    original: str


class Records(list[Record]):
    """Records that have arrived together.

    Attributes:
        header: The header of their table as it is in the text, or None if there is none.
        format: Format of their table.
    """

    header: str | None = None
    format = "tsv"


@dataclass(frozen=True)
class Table:
    r"""Format of tables, and the fields that are read from them.

    Attributes:
        fields: Names or numbers of columns, from 1, or keys of JSON objects. If one is a name, the first record of a
            table is its header. With numbers only, there is no header.
        format: One of `charlm.config.TABLE_FORMATS`, or None to choose it by the name of the file.
        with_numbers: Whether numbers, true and false of JSON lines are read as text, for instance as labels.

    Raises:
        ConfigError: If there is no such format.

    Example:
        >>> lines = Lines(["id,text\n", '1,"to be, or"\n'])
        >>> ((record,),) = Table(("text",), "csv").records("example.csv", [lines])
        >>> record.texts, record.original
        (('to be, or',), '1,"to be, or"')
    """

    fields: tuple[str, ...]
    format: str | None = None
    with_numbers: bool = False

    def __post_init__(self) -> None:
        if self.format not in (None, *TABLE_FORMATS):
            raise ConfigError(f"table {self.format}: must be one of {', '.join(TABLE_FORMATS)}", fields=["table"])

    def records(self, source: str, blocks: Iterable[Lines]) -> Iterator[Records]:
        """Read the records of one text.

        Args:
            source: Name of the text.
            blocks: Its lines.

        Yields:
            The records that end in a block of lines. Records of a pipe are returned as soon as they are written to it,
            unless they are followed by the beginning of a record that spans several lines.

        Raises:
            CorpusError: If a record is malformed or lacks a field.
        """
        lines = _LineFeed(source, blocks)
        table_format = self._format_of(source)
        read = self._read_json if table_format == "jsonl" else self._read_table
        batch = Records()
        for header, record in read(lines, table_format):
            batch.header, batch.format = header, table_format
            if record is not None:
                batch.append(record)
            if lines.block_ended:
                yield batch
                batch = Records()
        if batch or batch.header is not None:
            yield batch

    def select(self, source: Source) -> Source:
        """Return a text that consists of the chosen fields of another text, each on a line of its own."""

        def read(block_bytes: int) -> Iterator[str]:
            for records in self.records(source.name, split_lines(source.read(block_bytes))):
                yield "".join(f"{text}\n" for record in records for text in record.texts)

        return replace(source, read=read)

    def _format_of(self, source: str) -> str:
        return self.format or format_of_name(source)

    def _read_table(self, lines: "_LineFeed", table_format: str) -> Iterator[tuple[str | None, Record | None]]:
        """Yield the header of a table, or None, alone and then with each of the records."""
        header: str | None = None
        places: list[int] | None = None
        if all(map(_is_number, self.fields)):
            places = [int(name) - 1 for name in self.fields]
        for values in _split_columns(lines, SEPARATORS[table_format], quoted=table_format != "plain"):
            number, original = lines.take()
            if not values:  # an empty line
                continue
            if places is None:
                header, places = original, [self._place(name, values, lines.source) for name in self.fields]
                yield header, None
                continue
            try:
                texts = tuple(_on_one_line(values[place]) for place in places)
            except IndexError:
                raise CorpusError(
                    f"{lines.source}: line {number:,}: {len(values)} columns, so that column {max(places) + 1} is "
                    "missing; set table to the format of the file, or give another column",
                    fields=["table"],
                ) from None
            yield header, Record(lines.source, number, texts, original)

    def _place(self, name: str, header: Sequence[str], source: str) -> int:
        """Return the index of a column."""
        if name in header:
            return header.index(name)
        if _is_number(name) and int(name) <= len(header):
            return int(name) - 1
        raise CorpusError(
            f"{source}: no column {name!r} in the header; choose from {', '.join(map(repr, header))}, or set table",
            fields=["table"],
        )

    def _read_json(self, lines: "_LineFeed", table_format: str) -> Iterator[tuple[str | None, Record | None]]:
        """Yield None, because there is no header, with each record of JSON lines."""
        for line in lines:
            number, original = lines.take()
            if not line.strip():
                continue
            where = f"{lines.source}: line {number:,}"
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise CorpusError(f"{where}: not a JSON object ({error}); set table", fields=["table"]) from None
            if not isinstance(values, dict):
                raise CorpusError(f"{where}: not a JSON object; set table", fields=["table"])
            texts = []
            for name in self.fields:
                value = values.get(name)
                if self.with_numbers and isinstance(value, int | float):
                    value = json.dumps(value)
                if not isinstance(value, str):
                    raise CorpusError(f"{where}: no field {name!r} with a text in the JSON object")
                texts.append(_on_one_line(value))
            yield None, Record(lines.source, number, tuple(texts), original)


class _LineFeed:
    """Iterator over the lines of a text, which remembers the lines since the last record.

    Args:
        source: Name of the text.
        blocks: Its lines.

    Attributes:
        source: As given.
        block_ended: Whether the last line of a block has been read.
    """

    def __init__(self, source: str, blocks: Iterable[Lines]) -> None:
        self.source = source
        self.block_ended = False
        self._lines = self._feed(blocks)
        self._taken: list[str] = []
        self._number = 1

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def take(self) -> tuple[int, str]:
        """Return the lines since the last call: the number of the first one, and their text."""
        number, text = self._number, "".join(self._taken)
        self._number += len(self._taken)
        self._taken.clear()
        return number, text.removesuffix("\n")

    def _feed(self, blocks: Iterable[Lines]) -> Iterator[str]:
        rest = ""
        for block in blocks:
            lines = list(block)
            lines[0] = rest + lines[0]
            rest = lines.pop() if block.ends_mid_line else ""
            for index, line in enumerate(lines, start=1):
                self.block_ended = index == len(lines)
                self._taken.append(line)
                yield line


def _split_columns(lines: _LineFeed, separator: str, *, quoted: bool) -> Iterator[list[str]]:
    """Yield the columns of each record; none for an empty line.

    Raises:
        CorpusError: If a quotation mark has no partner, or is followed by other characters than a separator.
    """
    if not quoted:
        for line in lines:
            text = line.removesuffix("\n")
            yield text.split(separator) if text else []
        return
    csv.field_size_limit(MAX_FIELD_CHARS)
    try:
        yield from csv.reader(lines, delimiter=separator, strict=True)
    except csv.Error as error:
        number, _ = lines.take()
        raise CorpusError(
            f"{lines.source}: line {number:,}: {error}; set table to plain if quotation marks have no meaning",
            fields=["table"],
        ) from None


def format_of_name(source: str) -> str:
    """Return the format of a table by the name of its file: `tsv` unless the name has one of `SUFFIXES`."""
    stem = source.lower().removesuffix(".gz")
    return next((SUFFIXES[suffix] for suffix in SUFFIXES if stem.endswith(suffix)), "tsv")


def _is_number(name: str) -> bool:
    """Return True if a name is the number of a column, from 1."""
    return name.isdecimal() and int(name) > 0


def _on_one_line(text: str) -> str:
    """Return a text with a space instead of each newline."""
    return text.replace("\r\n", " ").replace("\n", " ").replace("\r", " ") if "\n" in text or "\r" in text else text


def append_to_record(original: str, table_format: str, columns: Mapping[str, Any]) -> str:
    """Return a record with columns after its other columns, which are unchanged.

    Args:
        original: The record.
        table_format: Its format.
        columns: Names and values of the new columns. For tables, the values have their final form.

    Example:
        >>> append_to_record('1,"to be, or"', "csv", {"bits": "2.5"})
        '1,"to be, or",2.5'
        >>> append_to_record('{"id": 1}', "jsonl", {"bits": 2.5})
        '{"id": 1, "bits": 2.5}'
    """
    if table_format == "jsonl":
        if any(json.dumps(name) in original for name in columns):
            return json.dumps({**json.loads(original), **columns}, ensure_ascii=False)
        return f"{original.rstrip()[:-1].rstrip()}, {json.dumps(columns)[1:]}"
    separator = SEPARATORS[table_format]
    return separator.join([original, *(_cell(value, table_format) for value in columns.values())])


def append_to_header(header: str, table_format: str, names: Sequence[str]) -> str:
    """Return the header of a table with names of columns after its other columns."""
    return append_to_record(header, table_format, {str(place): name for place, name in enumerate(names)})


def column_names(record: str, table_format: str) -> list[str]:
    """Return the columns of the header of a table, or the keys of a JSON object.

    Example:
        >>> column_names('id,"to be, or"', "csv"), column_names('{"id": 1}', "jsonl")
        (['id', 'to be, or'], ['id'])
    """
    if table_format == "jsonl":
        return list(json.loads(record))
    if table_format == "plain":
        return record.split(SEPARATORS[table_format])
    return next(csv.reader(record.splitlines(keepends=True), delimiter=SEPARATORS[table_format]), [])


def _cell(value: str, table_format: str) -> str:
    """Return a value in quotation marks if it contains a separator or a quotation mark."""
    if table_format == "plain" or not any(char in value for char in (SEPARATORS[table_format], '"')):
        return value
    return '"' + value.replace('"', '""') + '"'
