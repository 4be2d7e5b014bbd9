"""Command `charlm ls`."""

import json
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from charlm.cli.options import command, json_option, note, quiet_option
from charlm.text.printable import escape_unprintable

if TYPE_CHECKING:
    from charlm.engine.run_summary import RunSummary

COLUMNS = ("name", "nats", "bits/char", "size", "age", "corpus")
"""Headings of the table."""

LEFT_OUT = ("bits/char", "size", "age", "corpus", "nats")
"""Columns that a narrow terminal does not show, the first one first."""

NUMERIC = ("nats", "bits/char", "size", "age")
"""Columns that are aligned to the right."""

MIN_CORPUS_WIDTH, MIN_NAME_WIDTH = 8, 8
"""Numbers of characters to which a corpus and a name may be shortened."""

GAP, ELLIPSIS = "  ", "..."

AGES = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
"""Units of ages, in seconds."""

SIZES = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3), ("B", 1))
"""Units of sizes, in bytes."""


@command("ls")
@json_option
@quiet_option
def ls(as_json: bool, quiet: bool) -> None:
    """List the runs in ./checkpoints and the included models.

    The run that changed last is the first. The columns are the lowest validation loss in nats per token (for a text
    classifier in nats per text) and in bits per character, the size of the model file, the time since the last change,
    and the training text. A narrow terminal shows fewer columns. In a pipe, the columns are separated by tabs, sizes
    are in bytes, and times are in UTC.

    \b
    Example:
      charlm ls
      charlm ls --json
    """
    from charlm.engine.run_summary import summarize_runs

    summaries = list(summarize_runs())
    if as_json:
        click.echo(json.dumps([_facts(entry) for entry in summaries], indent=2))
        return
    if sys.stdout.isatty():
        click.echo(_table([_cells(entry) for entry in summaries], shutil.get_terminal_size().columns))
    else:
        click.echo("\n".join(["\t".join(FACTS), *map(_line, summaries)]))
    for entry in summaries:
        if entry.problem:
            note(entry.problem, quiet=quiet)
    if all(entry.included for entry in summaries):
        note("./checkpoints has no runs; charlm train makes one", quiet=quiet)


FACTS = ("name", "val_nats", "val_bits_per_char", "bytes", "modified", "corpus")
"""Facts of `_facts` that are the columns of the table in a pipe."""


def _facts(entry: "RunSummary") -> dict[str, str | float | bool | None]:
    """Return all that is known about a run or an included model, with its time in UTC."""
    time_text = f"{datetime.fromtimestamp(entry.modified, UTC):%Y-%m-%dT%H:%M:%SZ}" if entry.modified else None
    return {
        "name": entry.name,
        "val_nats": entry.val_nats,
        "val_bits_per_char": entry.val_bits_per_char,
        "bytes": entry.num_bytes,
        "modified": time_text,
        "corpus": entry.corpus,
        "path": str(entry.path),
        "included": entry.included,
        "training": entry.training,
        "problem": entry.problem or None,
    }


def _line(entry: "RunSummary") -> str:
    """Return one line of the table in a pipe. A fact that is not known is empty."""
    values = (_facts(entry)[name] for name in FACTS)
    cells = ("" if value is None else f"{value:.6f}" if isinstance(value, float) else str(value) for value in values)
    return "\t".join(map(escape_unprintable, cells))


def _cells(entry: "RunSummary") -> dict[str, str]:
    """Return the cells of one row on a terminal, by heading."""
    age = "" if entry.modified is None else _with_unit(max(0, time.time() - entry.modified), AGES)
    return {
        "name": escape_unprintable(entry.name),
        "nats": "-" if entry.val_nats is None else f"{entry.val_nats:.4f}",
        "bits/char": "-" if entry.val_bits_per_char is None else f"{entry.val_bits_per_char:.4f}",
        "size": "-" if entry.num_bytes is None else _with_unit(entry.num_bytes, SIZES),
        "age": "included" if entry.included else "training" if entry.training else age,
        "corpus": "damaged" if entry.problem else escape_unprintable(entry.corpus or ""),
    }


def _with_unit(number: float, units: Sequence[tuple[str, int]]) -> str:
    """Return a number in the largest unit of which it has one or more: 3 min, 5.9 MB."""
    name, size = next((unit for unit in units if number >= unit[1]), units[-1])
    value = number / size
    return f"{value:.1f} {name}" if units is SIZES and size > 1 and value < 10 else f"{int(value)} {name}"


def _table(rows: Sequence[dict[str, str]], columns: int) -> str:
    """Return rows as an aligned table with headings that fits into a number of columns, if that is 8 or more."""
    everything = [dict(zip(COLUMNS, COLUMNS, strict=True)), *rows]
    shown, widths = list(COLUMNS), {name: max(len(row[name]) for row in everything) for name in COLUMNS}

    def excess() -> int:
        return sum(widths[name] for name in shown) + len(GAP) * (len(shown) - 1) - columns

    for name in LEFT_OUT:
        for flexible, minimum in (("corpus", MIN_CORPUS_WIDTH), ("name", MIN_NAME_WIDTH)):
            if excess() > 0 and flexible in shown:
                widths[flexible] = max(min(minimum, widths[flexible]), widths[flexible] - excess())
        if excess() > 0:
            shown.remove(name)
            widths |= {other: max(len(row[other]) for row in everything) for other in ("name", "corpus")}
    widths["name"] = min(widths["name"], max(MIN_NAME_WIDTH, columns))
    return "\n".join(GAP.join(_aligned(row[name], name, widths[name]) for name in shown).rstrip() for row in everything)


def _aligned(cell: str, name: str, width: int) -> str:
    """Return a cell in the width of its column; a longer one is shortened."""
    cell = cell if len(cell) <= width else cell[: width - len(ELLIPSIS)] + ELLIPSIS
    return cell.rjust(width) if name in NUMERIC else cell.ljust(width)
