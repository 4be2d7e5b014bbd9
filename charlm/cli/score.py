"""Command `charlm score`."""

import math
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.options import (
    GroupedCommand,
    command,
    encoding_option,
    errors_option,
    json_option,
    model_option,
    noter,
    number,
    option,
    quiet_option,
    threads_option,
    wait_note,
)
from charlm.cli.score_columns import BITS_PER_CHAR, COLUMNS, LOG_RATIO, TEXT, describe, parse_columns
from charlm.cli.threads import limit_threads
from charlm.cli.unknown_note import note_unknown_tokens
from charlm.config import MAX_BATCH_LINES
from charlm.errors import ConfigError

if TYPE_CHECKING:
    from charlm.cli.score_views import View
    from charlm.engine.scorer import Scorer
    from charlm.text.tokenizer import Tokenizer

WEIGHT_TOLERANCE = 1e-9
"""Rounding error allowed in a sum of weights."""

OUTPUT, FILTER, COMPARISON = "Output", "Filter", "Other models"


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Values of the command's arguments and options."""

    files: tuple[str, ...]
    model: str | None
    total: bool
    columns: str | None
    per_token: bool
    per_word: bool
    unit: str | None
    no_header: bool
    color: str | None
    page: str | None
    above: float | None
    below: float | None
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
        outputs = {
            "--total": self.total,
            "--per-token": self.per_token,
            "--per-word": self.per_word,
            "--color": self.color,
            "--html": self.page,
        }
        row_options = {"--format": self.columns, "--above": self.above, "--below": self.below}
        given_outputs = [flag for flag, value in outputs.items() if value]
        given_row_options = [flag for flag, value in row_options.items() if value is not None]
        clashes = [*zip(given_outputs, given_row_options, strict=False), *pairwise(given_outputs)]
        if not (self.per_token or self.per_word):
            for flag, value in {"--unit": self.unit, "--no-header": self.no_header}.items():
                if value:
                    raise click.UsageError(f"{flag} needs --per-token or --per-word")
        if len(self.vs) > 1:
            raise click.UsageError("--vs is given more than once; it compares with one model")
        if self.vs:
            clashes += [(flag, "--vs") for flag in given_outputs if flag != "--total"]
        for first, second in clashes:
            raise click.UsageError(f"{first} and {second} cannot be combined")


class ScoreCommand(GroupedCommand):
    """Command `charlm score`: `--color` takes an optional value after an equals sign; the help lists the columns."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Replace `--color` by `--color=auto`. Otherwise, the next argument, a file, would be its value."""
        end = args.index("--") if "--" in args else len(args)
        options = ["--color=auto" if arg == "--color" else arg for arg in args[:end]]
        return super().parse_args(ctx, [*options, *args[end:]])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then the columns of `--format`."""
        super().format_options(ctx, formatter)
        with formatter.section("Columns of --format"):
            formatter.write_dl(describe(list(COLUMNS.values())))


@command(cls=ScoreCommand)
@click.argument("files", nargs=-1)
@model_option
@option("--total", is_flag=True, group=OUTPUT, help="Score the whole text as one stream and print its totals.")
@option(
    "--format",
    "columns",
    metavar="COLUMNS",
    group=OUTPUT,
    help="Columns to print, separated by commas. The columns are listed below.  "
    f"[default: {BITS_PER_CHAR},{TEXT}; with --vs {LOG_RATIO},{TEXT}]",
)
@option(
    "--per-token",
    is_flag=True,
    group=OUTPUT,
    help="Print a table with one row per token. A missing space has an empty text. The entropy is that of the "
    "prediction of the token: the mean of the surprisal that the model expects.",
)
@option(
    "--per-word",
    is_flag=True,
    group=OUTPUT,
    help="Print a table with one row per word. Words are separated by whitespace. The whitespace before a word counts "
    "for the word. The end of the line has a row of its own.",
)
@option(
    "--unit",
    type=click.Choice(["bits", "nats"]),  # UNITS of charlm.cli.score_tables
    group=OUTPUT,
    help="Unit of --per-token and --per-word.  [default: bits]",
)
@option("--no-header", is_flag=True, group=OUTPUT, help="Print the table of --per-token or --per-word without header.")
@option(
    "--color",
    metavar="[=WHEN]",
    type=click.Choice(["auto", "always", "never"]),
    group=OUTPUT,
    help="Print a heat map of the surprisal of each character. Without colours, a digit below each character shows its "
    "bits. WHEN is auto, always or never.",
)
@option("--html", "page", metavar="FILE", group=OUTPUT, help="Write the heat map to a self-contained web page.")
@option("--above", type=number, metavar="X", group=FILTER, help="Print only lines whose first number is above X.")
@option("--below", type=number, metavar="X", group=FILTER, help="Print only lines whose first number is below X.")
@option(
    "--vs", multiple=True, metavar="FILE|RUN", group=COMPARISON, help="Print the log-likelihood ratio to another model."
)
@option(
    "--mix",
    multiple=True,
    metavar="FILE|RUN:WEIGHT",
    group=COMPARISON,
    help="Interpolate with the probabilities of another model. With RUN:0.3, the weight of RUN is 0.3, and that of "
    "--model is 0.7. May be given several times.",
)
@json_option
@encoding_option
@errors_option("surrogateescape")
@threads_option
@quiet_option
@click.pass_context
def score(ctx: click.Context, /, **values: Any) -> None:
    """Score each line of a text.

    Reads FILES, or stdin if there are none or if a file is -. For each line, prints its bits per character, a tab and
    the line. Each line is scored independently: it starts from the zero state after one newline. The newline at its end
    counts, unless the input lacks it. A token that is not in the vocabulary costs what the model assigns to the unknown
    token, and its spelling.

    --above and --below compare the first number of --format, or bits per character if --format has no number. If no
    line is printed, the exit code is 1.

    \b
    Example:
      charlm score poems.txt | sort -n | head
      charlm score --total hamlet.txt
      charlm score --above 3 --format text log.txt
      charlm score -m shakespeare --vs python mixed.txt
      charlm score --color poem.txt
    """
    options = ScoreOptions(**values)
    options.check()
    scorers = _open_scorers(options)
    wait_note(options.files, quiet=options.quiet)
    if not _show(scorers, options):
        ctx.exit(1)


def _show(scorers: "list[Scorer]", options: ScoreOptions) -> bool:
    """Score the text and print the scores.

    Returns:
        False if lines are filtered and no line has passed.
    """
    from charlm.cli.score_views import show_lines, show_total
    from charlm.text.lines import read_lines
    from charlm.text.sources import STDIN

    blocks = read_lines(
        options.files or (STDIN,),
        encoding=options.encoding,
        errors=options.errors,
        report=noter(quiet=options.quiet),
    )
    passed = True
    if options.total:
        counts = show_total(scorers, blocks, as_json=options.as_json)
    else:
        view = _open_view(scorers[0].tokenizer, options)
        counts = show_lines(scorers, blocks, view)
        passed = not view.nothing_passed
    if counts.num_unknown and not (options.total and options.as_json):  # the JSON of --total has this number
        note_unknown_tokens(scorers[0], counts.num_unknown, counts.num_tokens, quiet=options.quiet)
    return passed


def _open_view(tokenizer: "Tokenizer", options: ScoreOptions) -> "View":
    """Return the view that the options choose."""
    from charlm.cli.score_tables import TokenTable, WordTable
    from charlm.cli.score_views import RowView, ScoreFilter

    unit, header = options.unit or "bits", not options.no_header
    if options.per_token:
        return TokenTable(tokenizer, unit, with_entropy=not options.mix, header=header, as_json=options.as_json)
    if options.per_word:
        return WordTable(tokenizer, unit, header=header, as_json=options.as_json)
    if options.color or options.page:
        return _open_heatmap(tokenizer, options)
    num_models = 1 + len(options.vs)
    columns = parse_columns(options.columns, num_models=num_models, all_by_default=options.as_json)
    return RowView(columns, ScoreFilter(above=options.above, below=options.below), as_json=options.as_json)


def _open_heatmap(tokenizer: "Tokenizer", options: ScoreOptions) -> "View":
    """Return a heat map: a web page if a file for it is given, else colours if stdout shows them, else digits."""
    from charlm.cli.heatmap import ColourHeatmap, DigitHeatmap, PageHeatmap

    if options.page:
        return PageHeatmap(tokenizer, options.page)
    is_terminal = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    if options.color == "always" or (options.color == "auto" and is_terminal):
        return ColourHeatmap(tokenizer)
    return DigitHeatmap(tokenizer, shutil.get_terminal_size().columns)


def _open_scorers(options: ScoreOptions) -> "list[Scorer]":
    """Return the scorer of the model or mixture, and the scorer of the model to compare with if there is one.

    The number of threads is set before NumPy is imported.
    """
    from charlm.engine.runs import find_model

    path = find_model(options.model)
    num_sequences = 1 if options.total else MAX_BATCH_LINES
    threads = limit_threads(options.threads, path, num_sequences=num_sequences, independent=not options.total)
    from charlm.engine.rnn import RecurrentNetwork
    from charlm.engine.scorer import Mixture, ModelScorer

    def open_model(path: Path) -> ModelScorer:
        return ModelScorer(RecurrentNetwork.load(path), threads, with_entropy=options.per_token and not options.mix)

    mixed = [_parse_mix(mix) for mix in options.mix]
    first: Scorer = open_model(path)
    if mixed:
        others = [open_model(find_model(name)) for name, _ in mixed]
        first = Mixture([first, *others], mixture_weights([weight for _, weight in mixed]))
    return [first, *(open_model(find_model(name)) for name in options.vs)]


def _parse_mix(mix: str) -> tuple[str, float]:
    """Split a value of `--mix` into the name of the model and its weight.

    Raises:
        ConfigError: If the value is not a name, a colon and a weight from 0 to 1.
    """
    name, _, weight_text = mix.rpartition(":")
    try:
        weight = float(weight_text)
    except ValueError:
        weight = -1.0
    if not name or not 0 <= weight <= 1:
        raise ConfigError(
            f"mix {mix}: must be a model, a colon and a weight from 0 to 1, such as shakespeare:0.3", fields=["mix"]
        )
    return name, weight


def mixture_weights(weights: Sequence[float]) -> list[float]:
    """Return the weights of all models of a mixture; the first model has what the given weights leave.

    Raises:
        ConfigError: If the given weights add up to more than 1.
    """
    rest = 1 - math.fsum(weights)
    if rest < -WEIGHT_TOLERANCE:
        raise ConfigError(f"mix: the weights add up to {math.fsum(weights):g}; at most 1 is possible", fields=["mix"])
    return [max(0.0, rest), *weights]
