r"""Reading of labelled texts: the samples that a classifier learns from.

Five layouts are read, and detected from the name and the first line of a file:

- a table with a header, separated by commas or tabs, with quotation marks: one column is the label, one is the text;
- lines of a label, a tab and a text, without a header and without quotation marks;
- JSON lines with one key for the label and one for the text;
- fastText's lines: `__label__x` and a text;
- a folder with one folder per class (`train/pos/`, `train/neg/`: each file is a text), or with one file per class
  (`pos.txt`, `neg.txt`: each line is a text).
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from charlm.errors import ConfigError, CorpusError
from charlm.text.lines import Lines, read_texts
from charlm.text.records import SEPARATORS, Table, format_of_name
from charlm.text.sources import Report, ignore

LABEL_NAMES = ("label", "labels", "class", "category", "target", "sentiment", "polarity")
"""Names of columns and keys that are taken for the label, without regard to case."""

TEXT_NAMES = ("text", "sentence", "review", "content", "message", "comment", "tweet", "title")
"""Names of columns and keys that are taken for the text, without regard to case."""

FASTTEXT_PREFIX = "__label__"

UNLABELLED_FOLDER = "unsup"
"""Folder of texts without labels in the layout of aclImdb; it is no class."""

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
"""Ends of the names of files that are tables. In a folder with a file per class, there are none."""

MAX_LABEL_CHARS = 1000
"""Maximum length of a label in characters."""

MAX_CLASSES = 10_000
"""Maximum number of classes."""

MAX_NAMED = 5
"""Maximum number of classes that a message names."""


class Sample(NamedTuple):
    """Text with a label.

    Attributes:
        label: Name of its class.
        text: The text; a newline within a field of a table is replaced by a space.
        source: Name of the file.
        number: Number of its first line in the file, from 1.
    """

    label: str
    text: str
    source: str
    number: int


@dataclass(frozen=True, kw_only=True)
class LabelledOptions:
    """Options for reading labelled texts.

    Attributes:
        label_field: Column or key of the label; None to detect it.
        text_field: Column or key of the text; None to detect it.
        table: Format of tables, one of `charlm.config.TABLE_FORMATS`; None to detect it.
        encoding: Encoding of the texts.
        errors: Treatment of bytes that are not valid in the encoding.

    Raises:
        ConfigError: If only one of both fields is given.
    """

    label_field: str | None = None
    text_field: str | None = None
    table: str | None = None
    encoding: str = "utf-8"
    errors: str = "strict"

    def __post_init__(self) -> None:
        if (self.label_field is None) != (self.text_field is None):
            raise ConfigError("label_field needs text_field: set both of them", fields=["label_field", "text_field"])
        Table(("1",), self.table)  # checks the format

    @property
    def fields(self) -> tuple[str, str] | None:
        """Columns of label and text, if they are given."""
        if self.label_field is None or self.text_field is None:
            return None
        return self.label_field, self.text_field


@dataclass
class Labelled:
    """Labelled texts.

    Attributes:
        samples: The samples with a text that is not empty, in the order of the input.
        empty: The samples whose text is empty or whitespace.
        layouts: Description of the layout of each input, in the order in which they first occur.
    """

    samples: list[Sample] = field(default_factory=list)
    empty: list[Sample] = field(default_factory=list)
    layouts: dict[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Number of samples of each class, sorted by the name of the class."""
        counts = Counter(sample.label for sample in self.samples)
        return {label: counts[label] for label in sorted(counts, key=_sort_key)}

    def notes(self) -> list[str]:
        """Return sentences about the detected layouts and about texts that are left out."""
        notes = [f"{name}: read as {layout}" for name, layout in self.layouts.items()]
        if self.empty:
            first = self.empty[0]
            notes.append(
                f"{len(self.empty):,} sample(s) left out because their text is empty; the first is in "
                f"{first.source}, line {first.number:,}"
            )
        return notes


def read_labelled(specs: Sequence[str], options: LabelledOptions | None = None, *, report: Report = ignore) -> Labelled:
    r"""Read labelled texts.

    Args:
        specs: Files, folders, patterns, or `-` for standard input.
        options: Columns, format and encoding.
        report: Receives a sentence about files of a folder that are skipped.

    Raises:
        CorpusError: If an input is missing, a record is malformed, or there is no sample.
        ConfigError: If the encoding is unknown.

    Example:
        >>> Path("two.tsv").write_text("pos\tA good film.\nneg\tA bad film.\n")
        33
        >>> read_labelled(["two.tsv"]).counts
        {'neg': 1, 'pos': 1}
    """
    options = options or LabelledOptions()
    found = Labelled()
    for spec in specs:
        samples = _read_folder if Path(spec).is_dir() else _read_files
        for sample in samples(spec, options, found.layouts, report):
            (found.samples if sample.text.strip() else found.empty).append(sample)
    if not found.samples:
        raise CorpusError(f"{' '.join(specs)}: no labelled text")
    if len(found.counts) > MAX_CLASSES:
        raise CorpusError(
            f"{' '.join(specs)}: {len(found.counts):,} different labels; the maximum is {MAX_CLASSES:,}. Check which "
            "column is the label (label_field)",
            fields=["label_field"],
        )
    return found


def classes_text(labels: Sequence[str]) -> str:
    """Return a phrase that names some classes and counts the others."""
    named = ", ".join(labels[:MAX_NAMED])
    return f"{named} and {len(labels) - MAX_NAMED:,} more" if len(labels) > MAX_NAMED else named


def _sort_key(label: str) -> tuple[bool, float, str]:
    """Sort labels that are numbers by their value, and before the others."""
    try:
        number = float(label)
    except ValueError:
        number = float("nan")
    return (number != number, number if number == number else 0.0, label)


def _read_files(spec: str, options: LabelledOptions, layouts: dict[str, str], report: Report) -> Iterator[Sample]:
    """Yield the samples of the files that a specification names."""
    for source, blocks in read_texts([spec], encoding=options.encoding, errors=options.errors, report=report):
        first_line, blocks = _peek(blocks)
        layout = _detect(source, first_line, options)
        layouts[source] = layout.description
        if layout.parse is not None:
            yield from _read_lines(source, blocks, layout.parse)
            continue
        assert layout.table is not None, "a layout has one of both"
        for records in layout.table.records(source, blocks):
            for record in records:
                label, text = record.texts
                yield checked_sample(Sample(label.strip(), text, source, record.number))


def checked_sample(sample: Sample) -> Sample:
    """Return a sample after checking its label.

    Raises:
        CorpusError: If the label is empty, too long, or cannot be written as UTF-8. A model file could not contain it.
    """
    place = f"{sample.source}: line {sample.number:,}"
    if not sample.label:
        raise CorpusError(f"{place}: a text without a label; add it, or omit the line")
    if len(sample.label) > MAX_LABEL_CHARS:
        raise CorpusError(
            f"{place}: a label of {len(sample.label):,} characters; the maximum is {MAX_LABEL_CHARS:,}. Check which "
            "column is the label (label_field)",
            fields=["label_field"],
        )
    try:
        sample.label.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise CorpusError(f"{place}: the label {sample.label[:40]!r} is not valid Unicode") from None
    return sample


def _peek(blocks: Iterable[Lines]) -> tuple[str, Iterator[Lines]]:
    """Return the first line of a text that is not empty, and the blocks from the beginning on."""
    read: list[Lines] = []
    first_line, iterator = "", iter(blocks)
    for lines in iterator:
        read.append(lines)
        first_line = next((line for line in lines if line.strip()), "").rstrip("\n")
        if first_line:
            break
    return first_line, chain(read, iterator)


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Layout of a file.

    Attributes:
        description: Words for the user.
        table: The table with the columns of label and text; None for lines.
        parse: Function that returns the sample of a line, for its text, the source and the number; None for a table.
    """

    description: str
    table: Table | None = None
    parse: Callable[[str, str, int], Sample] | None = None


def _detect(source: str, first_line: str, options: LabelledOptions) -> _Layout:
    """Return the layout of a file.

    Raises:
        CorpusError: If it cannot be detected.
    """
    if not first_line:
        raise CorpusError(f"{source}: no labelled text: the file is empty")
    if options.fields is None and options.table is None and first_line.startswith(FASTTEXT_PREFIX):
        return _Layout(description="fastText's lines: __label__x and a text", parse=_fasttext_sample)
    by_name = format_of_name(source)
    is_json = first_line.lstrip().startswith("{") and by_name == "tsv"
    table_format = options.table or ("jsonl" if is_json else by_name)
    if options.fields is not None:
        table = Table(options.fields, table_format, with_numbers=True)
        columns = f"label {options.fields[0]!r}, text {options.fields[1]!r}"
        return _Layout(description=f"{_format_text(table_format)}, {columns}", table=table)
    if table_format == "jsonl":
        return _detect_columns(source, _json_keys(first_line), table_format)
    # Standard input has no name that ends in .csv. Its header is recognised.
    formats = [table_format] if options.table is not None or "\t" in first_line else [table_format, "csv"]
    for candidate in formats:
        columns_found = _split_header(first_line, candidate)
        if _column_named(LABEL_NAMES, columns_found) and _column_named(TEXT_NAMES, columns_found):
            return _detect_columns(source, columns_found, candidate)
    columns_found = _split_header(first_line, table_format)
    cells = first_line.split("\t")
    if len(cells) == 2 and table_format != "csv":
        description = "lines of a label, a tab and a text"
        if options.table is None:
            return _Layout(description=description, parse=_tab_sample)
        return _Layout(description=description, table=Table(("1", "2"), options.table))
    if len(cells) == 1 and table_format != "csv":
        raise CorpusError(
            f"{source}: line 1: no tab between a label and a text; give lines of a label, a tab and a text, a table, "
            "JSON lines, fastText's __label__ lines, or a folder per class"
        )
    return _detect_columns(source, columns_found, table_format)


def _detect_columns(source: str, names: Sequence[str], table_format: str) -> _Layout:
    """Return the layout of a table, or of JSON lines, whose columns have known names.

    Raises:
        CorpusError: If no column is known as the label, or none as the text.
    """
    label, text = _column_named(LABEL_NAMES, names), _column_named(TEXT_NAMES, names)
    if label is None or text is None:
        missing = "label" if label is None else "text"
        shown = ", ".join(repr(name[:40]) for name in names[:MAX_NAMED])
        raise CorpusError(
            f"{source}: cannot tell which column is the {missing}; set label_field and text_field to names or numbers "
            f"of columns (the first line has {shown})",
            fields=["label_field", "text_field"],
        )
    table = Table((label, text), table_format, with_numbers=True)
    return _Layout(description=f"{_format_text(table_format)}, label {label!r}, text {text!r}", table=table)


def _format_text(table_format: str) -> str:
    """Return the words for a format of tables."""
    words = {"csv": "a table separated by commas", "jsonl": "JSON lines"}
    return words.get(table_format, "a table separated by tabs")


def _json_keys(line: str) -> list[str]:
    """Return the keys of a JSON object; none if the line is not one, which is an error when it is read."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return []
    return list(values) if isinstance(values, dict) else []


def _split_header(line: str, table_format: str) -> list[str]:
    """Return the columns of the first line of a table."""
    separator = SEPARATORS[table_format]
    return [column.strip('"') for column in line.split(separator)]


def _column_named(candidates: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the first of the names that is among the candidates, without regard to case."""
    return next((name for candidate in candidates for name in names if name.strip().lower() == candidate), None)


def _read_lines(source: str, blocks: Iterable[Lines], parse: Callable[[str, str, int], Sample]) -> Iterator[Sample]:
    """Yield the sample of each line that is not blank.

    Args:
        source: Name of the file.
        blocks: Its lines.
        parse: Returns the sample of a line, for its text without the newline, the source and the number.
    """
    number, rest = 1, ""
    for lines in blocks:
        for index, line in enumerate(lines):
            if lines.ends_mid_line and index == len(lines) - 1:
                rest += line
                continue
            line, rest = rest + line, ""
            if line.strip():
                yield parse(line.rstrip("\r\n"), source, number)
            number += 1
    if rest.strip():
        yield parse(rest, source, number)


def _tab_sample(line: str, source: str, number: int) -> Sample:
    """Return the sample of a label, a tab and a text, which may contain further tabs.

    Raises:
        CorpusError: If there is no tab, or no label.
    """
    label, tab, text = line.partition("\t")
    if not tab:
        raise CorpusError(f"{source}: line {number:,}: no tab between a label and a text")
    return checked_sample(Sample(label.strip(), text, source, number))


def _fasttext_sample(line: str, source: str, number: int) -> Sample:
    """Return the sample of one of fastText's lines.

    Raises:
        CorpusError: If it has no label, or several.
    """
    label, *parts = line.strip().split(maxsplit=1)
    text = parts[0] if parts else ""
    if not label.startswith(FASTTEXT_PREFIX):
        raise CorpusError(f"{source}: line {number:,}: no {FASTTEXT_PREFIX} at the beginning of the line")
    if text.startswith(FASTTEXT_PREFIX):
        raise CorpusError(f"{source}: line {number:,}: several labels; give one label per text")
    return checked_sample(Sample(label.removeprefix(FASTTEXT_PREFIX), text, source, number))


def _read_folder(spec: str, options: LabelledOptions, layouts: dict[str, str], report: Report) -> Iterator[Sample]:
    """Yield the samples of a folder with a folder per class, or with a file per class.

    Raises:
        CorpusError: If the folder has neither.
    """
    folder = Path(spec)
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    folders = [path for path in visible if path.is_dir()]
    if {"train", "test"} & {path.name for path in folders}:
        raise CorpusError(f"{spec}: has a folder of its own for training; give {folder / 'train'}")
    classes = [path for path in folders if path.name != UNLABELLED_FOLDER]
    if classes:
        skipped = f"; {UNLABELLED_FOLDER} is ignored" if len(classes) < len(folders) else ""
        layouts[spec] = f"a folder per class ({classes_text([path.name for path in classes])}){skipped}"
        for path in classes:
            yield from _whole_texts(path, options, report)
        return
    if not visible:
        raise CorpusError(f"{spec}: an empty folder")
    if tables := [path for path in visible if path.suffix in TABLE_SUFFIXES]:
        raise CorpusError(f"{spec}: neither a folder per class nor a text file per class; give a file ({tables[0]})")
    layouts[spec] = f"a file per class ({classes_text([path.name.split('.')[0] for path in visible])})"
    for path in visible:
        table = Table(("1",), "plain")
        for source, blocks in read_texts([str(path)], encoding=options.encoding, errors=options.errors, report=report):
            for records in table.records(source, blocks):
                for record in records:
                    yield Sample(path.name.split(".")[0], record.original, source, record.number)


def _whole_texts(folder: Path, options: LabelledOptions, report: Report) -> Iterator[Sample]:
    """Yield each file of a folder as a text whose label is the name of the folder."""
    texts = read_texts([str(folder)], encoding=options.encoding, errors=options.errors, report=report)
    for source, blocks in texts:
        text = "".join(line for lines in blocks for line in lines)
        yield Sample(folder.name, " ".join(text.splitlines()), source, 1)
