"""Values of the options of `charlm score`, and the rules by which they can be combined.

This module does not import NumPy.
"""

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.options import noter
from charlm.cli.score_columns import TEXT, Column, Mode, adaptive_columns, parse_columns
from charlm.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from charlm.cli.score_inputs import Block, Context

OUTPUTS = ("--total", "--per-token", "--per-word", "--color", "--html")
ROW_OPTIONS = ("--format", "--above", "--below", "--quantile")

CLASHES = (
    (OUTPUTS, OUTPUTS),
    (OUTPUTS, ROW_OPTIONS),
    (OUTPUTS, ("--pairs",)),
    (OUTPUTS[1:], ("--vs",)),
    (OUTPUTS, ("several --model",)),
    (("several --model",), ("--vs", "--mix", "--pairs")),
    (("--pairs",), ("--vs", "--context", "--context-field")),
    (("--context",), ("--context-field",)),
    (("--adapt",), ("--pairs", "--context", "--context-field")),
)
"""Options that cannot be combined: each of the first with each other one of the second."""

NEEDS = (
    (("--unit", "--no-header"), ("--per-token", "--per-word")),
    (("--table",), ("--field",)),
    (("--context-field",), ("--field",)),
    (("--separator",), ("--context-field",)),
    (("--by-line",), ("--total",)),
)
"""Options that need one of others."""


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Values of the command's arguments and options."""

    files: tuple[str, ...]
    models: tuple[str, ...]
    fields: tuple[str, ...]
    table: str | None
    pairs: bool
    context: str | None
    context_field: str | None
    separator: str | None
    total: bool
    by_line: bool
    adapt: bool
    columns: str | None
    per_token: bool
    per_word: bool
    unit: str | None
    no_header: bool
    color: str | None
    page: str | None
    above: float | None
    below: float | None
    quantile: float | None
    vs: tuple[str, ...]
    mix: tuple[str, ...]
    as_json: bool
    encoding: str
    errors: str
    threads: int | None
    quiet: bool

    def check(self) -> None:
        """Check that the options can be combined.

        Raises:
            click.UsageError: If two of them cannot be combined.
        """
        given = self._given()
        for firsts, seconds in CLASHES:
            for first, second in product(firsts, seconds):
                if first != second and {first, second} <= given:
                    raise click.UsageError(f"{first} and {second} cannot be combined")
        for flags, required in NEEDS:
            for flag in flags:
                if flag in given and not given & set(required):
                    raise click.UsageError(f"{flag} needs {' or '.join(required)}")
        if len(self.vs) > 1:
            raise click.UsageError("--vs is given more than once; it compares with one model")
        if self.total and not self.by_line and given & {"--context", "--context-field"}:
            raise click.UsageError("--context and --total need --by-line: one stream has one beginning")
        num_fields = 2 if self.pairs else 1
        if self.fields and len(self.fields) != num_fields:
            needed = "two columns" if self.pairs else "one column"
            raise click.UsageError(f"--field names {len(self.fields)} columns; give {needed}")
        if self.fields and self.as_json and not given & set(OUTPUTS):
            raise click.UsageError("--field and --json cannot be combined: the output has the format of the input")

    def _given(self) -> set[str]:
        """Return the names of the options that are given and that cannot be combined with all others."""
        values = {
            "several --model": len(self.models) > 1,
            "--field": self.fields,
            "--table": self.table,
            "--pairs": self.pairs,
            "--context": self.context,
            "--context-field": self.context_field,
            "--separator": self.separator,
            "--total": self.total,
            "--by-line": self.by_line,
            "--adapt": self.adapt,
            "--format": self.columns,
            "--per-token": self.per_token,
            "--per-word": self.per_word,
            "--unit": self.unit,
            "--no-header": self.no_header,
            "--color": self.color,
            "--html": self.page,
            "--above": self.above,
            "--below": self.below,
            "--quantile": self.quantile,
            "--vs": self.vs,
            "--mix": self.mix,
        }
        return {flag for flag, value in values.items() if value not in (None, False, ())}

    @property
    def mode(self) -> Mode:
        """Kind of comparison that a row shows."""
        if self.pairs:
            return Mode.PAIRS
        if len(self.models) > 1:
            return Mode.MODELS
        return Mode.VS if self.vs else Mode.ONE

    @property
    def has_entropy(self) -> bool:
        """True if the entropy of each prediction is printed. Mixtures and adaptive scores have none."""
        return self.per_token and not self.mix and not self.adapt

    def parsed_columns(self) -> list[Column]:
        """Return the columns of a row.

        Raises:
            ConfigError: If a column does not exist or does not fit the other options.
        """
        columns = parse_columns(self.columns, self.mode, all_by_default=self.as_json)
        if self.adapt:
            columns = adaptive_columns(columns)
        if not self.fields:
            return columns
        if self.columns is not None and TEXT in [column.name for column in columns]:
            raise ConfigError(
                f"columns {self.columns}: {TEXT} is a column of the input already; omit it", fields=["columns"]
            )
        return [column for column in columns if column.name != TEXT]

    def blocks(self) -> "Iterator[Block]":
        """Return the texts to score, with the rows that they belong to."""
        from charlm.cli.score_inputs import line_blocks, pair_blocks, record_blocks
        from charlm.text.lines import read_lines, read_texts
        from charlm.text.records import Table
        from charlm.text.sources import STDIN

        files = self.files or (STDIN,)
        reading: dict[str, Any] = {"encoding": self.encoding, "errors": self.errors, "report": noter(quiet=self.quiet)}
        if self.fields:
            contexts = () if self.context_field is None else (self.context_field,)
            table = Table((*self.fields, *contexts), self.table)
            return record_blocks(read_texts(files, **reading), table, self._context())
        if self.pairs:
            return pair_blocks(read_texts(files, **reading))
        return line_blocks(read_lines(files, **reading), self._context())

    def _context(self) -> "Context | None":
        from charlm.cli.score_inputs import Context

        has_context = self.context is not None or self.context_field is not None
        return Context(self.context, self.separator) if has_context else None
