"""Tables of facts: aligned and wrapped on a terminal, one unchanged line per row elsewhere."""

import sys
from collections.abc import Sequence

import click

from charlm.text.printable import escape_unprintable

Row = Sequence[str]
"""Cells of a row. The first one is the name."""


def print_table(rows: Sequence[Row], *, err: bool = False) -> None:
    """Print a table on stdout, or on stderr.

    On a terminal, columns are aligned, long cells are wrapped, and a name that equals the one above is left out. In a
    file or a pipe, cells on stdout are separated by tabs and empty rows are left out; cells on stderr are aligned.

    Args:
        rows: The rows, each with the same number of cells. Characters that are not printable are escaped.
        err: Whether to print on stderr.
    """
    escaped = [[escape_unprintable(cell) for cell in row] for row in rows]
    if (sys.stderr if err else sys.stdout).isatty():
        _print_wrapped(escaped, err=err)
    elif err:
        widths = [max(map(len, column)) for column in zip(*escaped, strict=True)]
        for row in escaped:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            click.echo("  ".join(cells).rstrip(), err=True)
    else:
        for row in filter(any, escaped):
            click.echo("\t".join(row).rstrip("\t"))


def _print_wrapped(rows: Sequence[Row], *, err: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    for _ in rows[0]:
        table.add_column(overflow="fold")
    above = ""
    for name, *cells in rows:
        table.add_row(Text("" if name == above else name, style="bold"), *map(Text, cells))
        above = name
    Console(stderr=err).print(table)
