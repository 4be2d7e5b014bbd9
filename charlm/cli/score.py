"""Command `charlm score`."""

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.adapt import adapt_option
from charlm.cli.completions import complete_files
from charlm.cli.mix import mix_option, mixture_weights, parse_mix
from charlm.cli.options import (
    EscapedText,
    GroupedCommand,
    Number,
    command,
    encoding_option,
    errors_option,
    json_option,
    note,
    number,
    option,
    quiet_option,
    table_option,
    threads_option,
    wait_note,
)
from charlm.cli.score_columns import COLUMNS, DEFAULT_COLUMNS, MODE_LABELS, describe
from charlm.cli.score_options import ScoreOptions
from charlm.cli.threads import limit_threads
from charlm.cli.unknown_note import note_unknown_tokens
from charlm.config import MAX_BATCH_LINES

if TYPE_CHECKING:
    from charlm.cli.score_views import View
    from charlm.engine.adaptive import Adaptation
    from charlm.engine.scorer import Scorer
    from charlm.text.tokenizer import Tokenizer

INPUT, OUTPUT, FILTER, COMPARISON = "Input", "Output", "Filter", "Other models"


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


@command(cls=ScoreCommand, groups=(INPUT, OUTPUT, FILTER, COMPARISON))
@click.argument("files", nargs=-1, shell_complete=complete_files)
@option(
    "-m",
    "--model",
    "models",
    multiple=True,
    metavar="FILE|RUN",
    help="Model file, folder of a run, or name of a run in ./checkpoints. With several -m, print for each line the "
    "model that gives it the highest probability.  [default: the newest run there, or else the included model]",
)
@option(
    "--field",
    "fields",
    multiple=True,
    metavar="NAME|N",
    group=INPUT,
    help="Score this column of a table, or this key of JSON lines, and print all columns with the scores after them. "
    "With a name, the first record is the header. A number counts columns from 1. A newline within a field is read as "
    "a space.",
)
@table_option(INPUT)
@option(
    "--pairs",
    is_flag=True,
    group=INPUT,
    help="Compare two texts per line, separated by a tab, or two columns (--field twice). A note shows in how many "
    "pairs the first text is more probable.",
)
@option(
    "--context",
    type=EscapedText(),
    metavar="TEXT",
    group=INPUT,
    help="Score each line as the continuation of this text. The text itself does not count. Nothing is inserted "
    "between both.",
)
@option("--context-field", metavar="NAME|N", group=INPUT, help="As --context, with the text of a column.")
@option(
    "--separator",
    type=EscapedText(),
    metavar="TEXT",
    group=INPUT,
    help="Text between --context-field and the scored column.  [default: a space, except next to whitespace, before "
    "one of .,;:!?)]} and next to ideographs]",
)
@option("--total", is_flag=True, group=OUTPUT, help="Score the whole text as one stream and print its totals.")
@option("--by-line", is_flag=True, group=OUTPUT, help="With --total: score each line independently and print the sums.")
@adapt_option(
    "Learn from each text while it is scored: a third part counts the lines before the current one. One file is one "
    "document, in which the order of lines matters; with --total, all files are one. Names of columns begin with "
    "adaptive.",
    OUTPUT,
)
@option(
    "--format",
    "columns",
    metavar="COLUMNS",
    group=OUTPUT,
    help="Columns to print, separated by commas. The columns are listed below.  "
    f"[default: {'; '.join(MODE_LABELS[mode] + ','.join(names) for mode, names in DEFAULT_COLUMNS.items())}]",
)
@option(
    "--per-token",
    is_flag=True,
    group=OUTPUT,
    help="Print a table with one row per token. A token for a missing space has an empty text. The entropy is the "
    "expected value of the surprisal.",
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
    "--quantile",
    type=Number(0, 1, min_open=True),
    metavar="X",
    group=FILTER,
    help="Print only the best share X of the lines, such as 0.2: those with the lowest first number, or the highest if "
    "higher is better. Lines are kept in a temporary file until all have been scored.",
)
@option(
    "--vs", multiple=True, metavar="FILE|RUN", group=COMPARISON, help="Print the log-likelihood ratio to another model."
)
@mix_option(COMPARISON)
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
      charlm score -m english -m german -m french mails.txt
      charlm score --field text --quantile 0.2 crawl.tsv > best.tsv
      charlm score --per-word poem.txt > words.tsv
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

    if options.total and not options.by_line:
        counts = show_total(scorers, options.blocks(), as_json=options.as_json, adaptive=options.adapt)
        passed = True
    else:
        view = _open_view(scorers[0].tokenizer, options)
        counts = show_lines(scorers, options.blocks(), view, texts_per_row=2 if options.pairs else 1)
        passed = not view.nothing_passed
        if view.summary:
            note(view.summary, quiet=options.quiet)
    if counts.num_unknown and not (options.total and options.as_json):  # the JSON of --total has this number
        note_unknown_tokens(scorers[0], counts.num_unknown, counts.num_tokens, quiet=options.quiet)
    if any(getattr(scorer.tokenizer, "split", "") == "whitespace" for scorer in scorers):
        note(
            "the model splits text at whitespace, which is not kept: bits per character and per byte are exact only if "
            "single spaces separate the words",
            quiet=options.quiet,
        )
    return passed


def _open_view(tokenizer: "Tokenizer", options: ScoreOptions) -> "View":
    """Return the view that the options choose."""
    from charlm.cli.score_tables import TokenTable, WordTable
    from charlm.cli.score_views import RecordView, RowView, ScoreFilter, TotalView

    unit, header = options.unit or "bits", not options.no_header
    surprisal = f"adaptive_{unit}" if options.adapt else unit
    if options.total:
        return TotalView(as_json=options.as_json, adaptive=options.adapt)
    if options.per_token:
        return TokenTable(
            *(tokenizer, unit, surprisal),
            with_entropy=options.has_entropy,
            header=header,
            as_json=options.as_json,
        )
    if options.per_word:
        return WordTable(tokenizer, unit, surprisal, header=header, as_json=options.as_json)
    if options.color or options.page:
        return _open_heatmap(tokenizer, options)
    score_filter = ScoreFilter(above=options.above, below=options.below, quantile=options.quantile)
    if options.fields:
        return RecordView(options.parsed_columns(), score_filter, models=options.models)
    return RowView(options.parsed_columns(), score_filter, as_json=options.as_json, models=options.models)


def _open_heatmap(tokenizer: "Tokenizer", options: ScoreOptions) -> "View":
    """Return a heat map: a web page if a file for it is given, else colours if stdout shows them, else digits."""
    from charlm.cli.heatmap import ColourHeatmap, DigitHeatmap, PageHeatmap

    if options.page:
        from charlm.engine.runs import find_model

        model = " ".join(options.models) or find_model(None).parent.name
        mixed = f" with {' '.join(options.mix)}" if options.mix else ""
        text = " ".join("standard input" if name == "-" else name for name in options.files or ("-",))
        scored = "scored adaptively" if options.adapt else "scored"
        return PageHeatmap(tokenizer, options.page, title=f"{text}, {scored} by {model}{mixed}")
    is_terminal = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    if options.color == "always" or (options.color == "auto" and is_terminal):
        return ColourHeatmap(tokenizer)
    return DigitHeatmap(tokenizer, shutil.get_terminal_size().columns)


def _open_scorers(options: ScoreOptions) -> "list[Scorer]":
    """Return the scorers of the models, or of their mixture, and of the model to compare with if there is one.

    The number of threads is set before NumPy is imported.
    """
    from charlm.engine.runs import find_model

    path, *more = [find_model(name) for name in options.models or (None,)]
    is_stream = options.total and not options.by_line
    num_sequences = 1 if is_stream else MAX_BATCH_LINES
    threads = limit_threads(options.threads, path, num_sequences=num_sequences, independent=not is_stream)
    from charlm.engine.adaptive_predictor import AdaptiveScorer, adaptation_of
    from charlm.engine.checkpoint import load_checkpoint
    from charlm.engine.item_sampler import separator_of_model
    from charlm.engine.mixture import open_predictor
    from charlm.engine.scorer import ModelScorer, ScorerMixture

    def open_model(path: Path) -> "tuple[Scorer, Adaptation]":
        checkpoint = load_checkpoint(path)
        if is_stream and separator_of_model(checkpoint.metadata) is not None:
            note(
                f"{path} was trained on items that are read independently: it scores them worse in one stream than "
                "with --by-line",
                quiet=options.quiet,
            )
        scorer = ModelScorer(open_predictor(checkpoint), threads, with_entropy=options.has_entropy)
        return scorer, adaptation_of(checkpoint)

    opened = [open_model(path) for path in (path, *more, *map(find_model, options.vs))]
    mixed = [parse_mix(mix) for mix in options.mix]
    if mixed:
        first, adaptation = opened[0]
        others = [open_model(find_model(name))[0] for name, _ in mixed]
        weights = mixture_weights([weight for _, weight in mixed])
        opened[0] = ScorerMixture([first, *others], weights), adaptation
    if options.adapt:
        return [AdaptiveScorer(scorer, adaptation) for scorer, adaptation in opened]
    return [scorer for scorer, _ in opened]
