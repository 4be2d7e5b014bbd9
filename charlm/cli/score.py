"""`charlm score`."""

import os
import shutil
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import click

from charlm.cli.options import (
    GroupedCommand,
    command,
    encoding_option,
    errors_option,
    json_option,
    model_option,
    note,
    quiet_option,
    threads_option,
    wait_note,
)
from charlm.cli.threads import limit_threads
from charlm.errors import ConfigError

if TYPE_CHECKING:
    from charlm.cli.score_columns import View
    from charlm.engine.scorer import Scorer


class ColorCommand(GroupedCommand):
    """Lets `--color` stand alone or have a value behind `=`, and never take the file that follows it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give a lone `--color` its value."""
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [*("--color=auto" if a == "--color" else a for a in args[:end]), *args[end:]])


@command(cls=ColorCommand)
@click.argument("files", nargs=-1)
@model_option
@click.option("--total", is_flag=True, help="Score all text as one stream and print its figures.")
@click.option(
    "--format",
    "columns",
    metavar="COLUMNS",
    help="Columns to print, joined by commas: bits-per-char, bits-per-byte, nats, tokens, unknowns, perplexity, chars, "
    "log-ratio, text.  [default: bits-per-char,text; with --vs log-ratio,text]",
)
@click.option("--above", type=float, metavar="X", help="Print only lines whose first number is greater than X.")
@click.option("--below", type=float, metavar="X", help="Print only lines whose first number is less than X.")
@click.option("--per-token", is_flag=True, help="Print a row for each token: line, nats, token.")
@click.option(
    "--color",
    metavar="[=WHEN]",
    type=click.Choice(["auto", "always", "never"]),
    help="Paint each character by its surprise. Where there are no colours, a digit stands below it. WHEN is auto, "
    "always or never.",
)
@click.option("--html", "page", metavar="FILE", help="Write the painted text as a page that stands alone.")
@click.option(
    "--vs",
    metavar="FILE|RUN",
    help="Compare with this model: how many nats less a line costs the first one, below 0 if it costs more.",
)
@click.option(
    "--mix",
    metavar="FILE|RUN:WEIGHT",
    help="Mean the probabilities with those of this model, as RUN:0.3 for 0.7 of the first and 0.3 of this one.",
)
@json_option
@encoding_option
@errors_option("surrogateescape")
@threads_option
@quiet_option
@click.pass_context
def score(
    ctx: click.Context,
    files: tuple[str, ...],
    model: str | None,
    total: bool,
    columns: str | None,
    above: float | None,
    below: float | None,
    per_token: bool,
    color: str | None,
    page: str | None,
    vs: str | None,
    mix: str | None,
    as_json: bool,
    encoding: str,
    errors: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Say how probable a model finds each line of a text.

    Reads FILES, or stdin if there are none or for -. For each line: bits a character, tab, the line. A line starts
    from the zero state after one newline; its own newline counts, unless the input lacks it. Characters that the
    model never saw cost what it gives its unknown token. With --above or --below, exit code 1 says that no line passed.

    \b
    Example:
      charlm score poems.txt | sort -n | head
      charlm score --total hamlet.txt
      charlm score --above 3 --format text log.txt
      charlm score -m shakespeare --vs python mixed.txt
      charlm score --color poem.txt
    """
    ways = {"--total": total, "--per-token": per_token, "--color": color, "--html": page}
    _refuse(ways, {"--format": columns, "--above": above, "--below": below})
    _refuse({**ways, "--total": False}, {"--vs": vs})
    scorers = _open_scorers(model, vs, mix, threads, one_stream=total)
    wait_note(files, quiet=quiet)
    from charlm.cli.score_columns import RowView, ScoreFilter, TokenView, parse_columns, print_total, show_lines
    from charlm.text.lines import read_lines
    from charlm.text.sources import STDIN

    columns_shown = parse_columns(columns, compares=vs is not None, everything=as_json)
    view: View = RowView(columns_shown, ScoreFilter(above=above, below=below), as_json=as_json)
    if per_token:
        view = TokenView(scorers[0].tokenizer, as_json=as_json)
    elif color or page:
        view = _painter(scorers[0], color, page)
    blocks = read_lines(files or (STDIN,), encoding=encoding, errors=errors)
    found = print_total(scorers, blocks, as_json=as_json) if total else show_lines(scorers, blocks, view)
    if found.unknowns:
        note(f"{found.unknowns:,} of {found.tokens:,} tokens were unknown to the model", quiet=quiet)
    if isinstance(view, RowView) and view.nothing_passed:
        ctx.exit(1)


def _refuse(first: Mapping[str, object], second: Mapping[str, object]) -> None:
    """Say so where two options that contradict each other are given, or several ways of showing at once."""
    ways = [name for name, value in first.items() if value]
    others = [name for name, value in second.items() if value is not None]
    for one, other in [*zip(ways, others, strict=False), *pairwise(ways)]:
        raise click.UsageError(f"{one} and {other} do not go together.")


def _open_scorers(
    model: str | None, vs: str | None, mix: str | None, threads: int | None, *, one_stream: bool
) -> "list[Scorer]":
    """The model, or its mixture with another, and behind it the one to compare with, if there is one."""
    from charlm.engine.runs import find_model

    path = find_model(model)
    threads = limit_threads(threads, path, rows=1 if one_stream else 128, apart=not one_stream)
    from charlm.engine.rnn import RecurrentNetwork
    from charlm.engine.scorer import Mixture, ModelScorer

    def opened(path: Path) -> ModelScorer:
        return ModelScorer(RecurrentNetwork.load(path), threads)

    first: Scorer = opened(path)
    if mix is not None:
        name, weight = _parse_mix(mix)
        first = Mixture(first, opened(find_model(name)), weight)
    return [first] if vs is None else [first, opened(find_model(vs))]


def _parse_mix(mix: str) -> tuple[str, float]:
    name, _, weight = mix.rpartition(":")
    try:
        parsed = float(weight)
    except ValueError:
        parsed = -1.0
    if not name or not 0 <= parsed <= 1:
        raise ConfigError(f"--mix {mix}: must be a model, a colon and its weight from 0 to 1, as shakespeare:0.3")
    return name, parsed


def _painter(scorer: "Scorer", color: str | None, page: str | None) -> "View":
    from charlm.cli.heatmap import ColourView, PageView, PlainView

    if page is not None:
        return PageView(scorer.tokenizer, page)
    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    if color == "always" or (color == "auto" and colours):
        return ColourView(scorer.tokenizer)
    return PlainView(scorer.tokenizer, shutil.get_terminal_size().columns)
