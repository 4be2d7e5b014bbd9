"""Output of `charlm classify predict`: a row per text.

This module imports NumPy. Import it after the number of threads has been set.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import click

from charlm.cli.options import noter
from charlm.cli.streams import write_text
from charlm.engine.text_classifier import Prediction, TextClassifier
from charlm.errors import ConfigError
from charlm.text.lines import Lines, read_lines, read_texts
from charlm.text.records import Table, append_to_header, append_to_record, column_names
from charlm.text.sources import STDIN

COLUMNS = ("label", "probability", "text", "line", "file")
DEFAULT_COLUMNS = ("label", "probability", "text")

PREFIX = "predicted_"
"""Prefix of a new column of a table that already has a column of that name."""

BATCH_TEXTS = 1024
"""Maximum number of texts that are classified together."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Values of the command's arguments and options.

    Raises:
        click.UsageError: If two of them cannot be combined.
        ConfigError: If a column does not exist.
    """

    files: tuple[str, ...]
    field: str | None
    table: str | None
    all_classes: bool
    columns: str | None
    above: float | None
    only: str | None
    as_json: bool
    encoding: str
    errors: str
    quiet: bool

    def __post_init__(self) -> None:
        if self.table is not None and self.field is None:
            raise click.UsageError("--table needs --field")
        if self.field is not None and self.as_json:
            raise click.UsageError("--field and --json cannot be combined: the output has the format of the input")
        if self.columns is not None and (self.as_json or self.all_classes):
            raise click.UsageError(f"--format and {'--json' if self.as_json else '--all'} cannot be combined")
        for name in self.shown_columns:
            if name not in COLUMNS:
                raise ConfigError(f"columns {name}: must be one of {', '.join(COLUMNS)}", fields=["columns"])

    @property
    def shown_columns(self) -> Sequence[str]:
        """Columns of a row."""
        return DEFAULT_COLUMNS if self.columns is None else self.columns.split(",")


class _Item(NamedTuple):
    """Text to classify: the name of the file, the number of its line, the text, and the record that contains it."""

    source: str
    number: int
    text: str
    original: str | None = None


class _Block(NamedTuple):
    """Texts that have arrived together, with header and format of their table."""

    items: list[_Item]
    header: str | None = None
    format: str = "tsv"


def show_predictions(classifier: TextClassifier, options: PredictOptions) -> bool:
    """Classify all texts and print the rows.

    Returns:
        False if texts are filtered and none has passed.

    Raises:
        ConfigError: If the label to filter by does not exist.
    """
    if options.only is not None and options.only not in classifier.labels:
        raise ConfigError(
            f"only {options.only}: no such class; the classes are {', '.join(classifier.labels[:20])}", fields=["only"]
        )
    is_filtered = options.above is not None or options.only is not None
    passed, header_shown = not is_filtered, False
    for block in _blocks(options):
        if not header_shown:
            header_shown = _show_header(classifier, options, block)
        for begin in range(0, len(block.items), BATCH_TEXTS):
            items = block.items[begin : begin + BATCH_TEXTS]
            predictions = classifier.predict([item.text for item in items])
            for item, prediction in zip(items, predictions, strict=True):
                if _passes(prediction, options):
                    passed = True
                    write_text(_row(item, prediction, options, block.format) + "\n")
    return passed


def _passes(prediction: Prediction, options: PredictOptions) -> bool:
    is_wanted = options.only is None or prediction.label == options.only
    return is_wanted and (options.above is None or prediction.probability > options.above)


def _show_header(classifier: TextClassifier, options: PredictOptions, block: _Block) -> bool:
    """Print the header, if there is one. Return True unless it may still come."""
    names = ["label", "probability", *(map(_cell, classifier.labels) if options.all_classes else ())]
    if options.field is not None:
        if block.header is not None:
            names = _new_names(names, column_names(block.header, block.format))
            write_text(append_to_header(block.header, block.format, names) + "\n")
        return block.header is not None
    if options.all_classes and not options.as_json:
        write_text("\t".join([*names, "text"]) + "\n")
    return True


def _new_names(names: Iterable[str], existing: Collection[str]) -> list[str]:
    """Return names of columns. Those that a table has already get a prefix, so that its own columns stay."""
    return [f"{PREFIX}{name}" if name in existing else name for name in names]


def _row(item: _Item, prediction: Prediction, options: PredictOptions, table_format: str) -> str:
    """Return the row of a text."""
    label, probability = prediction.label, f"{prediction.probability:.4f}"
    others = prediction.probabilities if options.all_classes else {}
    if item.original is not None and table_format == "jsonl":
        values: dict[str, Any] = {"label": label, "probability": prediction.probability}
        values |= {"probabilities": others} if others else {}
        names = _new_names(values, column_names(item.original, table_format))
        return append_to_record(item.original, table_format, dict(zip(names, values.values(), strict=True)))
    if item.original is not None:
        cells = [_cell(label), probability, *_rounded(others).values()]
        # A class may be called "label". The keys are not printed.
        return append_to_record(item.original, table_format, {str(place): cell for place, cell in enumerate(cells)})
    if options.as_json:
        values = {"label": label, "probability": prediction.probability}
        if options.all_classes:
            values["probabilities"] = prediction.probabilities
        return json.dumps({**values, "text": item.text, "line": item.number, "file": item.source})
    if options.all_classes:
        return "\t".join([_cell(label), probability, *_rounded(others).values(), item.text])
    columns = {
        "label": _cell(label),
        "probability": probability,
        "text": item.text,
        "line": str(item.number),
        "file": item.source,
    }
    return "\t".join(columns[name] for name in options.shown_columns)


def _rounded(probabilities: dict[str, float]) -> dict[str, str]:
    return {label: f"{probability:.4f}" for label, probability in probabilities.items()}


def _cell(label: str) -> str:
    """Return a label on one line, without tabs."""
    return " ".join(label.split())


def _blocks(options: PredictOptions) -> Iterator[_Block]:
    """Yield the texts to classify as they arrive."""
    files = options.files or (STDIN,)
    reading: dict[str, Any] = {
        "encoding": options.encoding,
        "errors": options.errors,
        "report": noter(quiet=options.quiet),
    }
    if options.field is None:
        yield from _line_blocks(read_lines(files, **reading))
        return
    table = Table((options.field,), options.table, with_numbers=True)
    for source, blocks in read_texts(files, **reading):
        for records in table.records(source, blocks):
            items = [_Item(record.source, record.number, record.texts[0], record.original) for record in records]
            yield _Block(items, records.header, records.format)


def _line_blocks(blocks: Iterable[Lines]) -> Iterator[_Block]:
    """Yield lines; a long line that arrives in parts is joined."""
    rest = ""
    for lines in blocks:
        texts = list(lines)
        texts[0] = rest + texts[0]
        rest = texts.pop() if lines.ends_mid_line else ""
        numbers = count(lines.first_number)
        yield _Block([_Item(lines.source, next(numbers), text.removesuffix("\n")) for text in texts])
    if rest:
        yield _Block([_Item(lines.source, lines.first_number, rest)])
