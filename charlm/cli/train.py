"""Command `charlm train`."""

import os
import shlex
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.completions import complete_corpora
from charlm.cli.durations import duration_text
from charlm.cli.options import (
    Duration,
    command,
    encoding_option,
    errors_option,
    glove_option,
    note,
    option,
    quiet_option,
    resume_option,
    settings_options,
    show_as_typed,
    table_option,
    threads_option,
    warn,
)
from charlm.cli.status import StatusLine
from charlm.config import (
    LENGTH,
    MODEL,
    NGRAM_CELL,
    NGRAMS,
    OPTIMISATION,
    REGULARISATION,
    RUNNING,
    TEXT,
    TOKENS,
    ModelConfig,
    TokenizerConfig,
    TrainConfig,
)
from charlm.training.recipe import AUTOMATIC

if TYPE_CHECKING:
    from charlm.training.request import Request
    from charlm.training.setup import Training

RUN = "Run"
GROUPS = (RUN, LENGTH, TEXT, TOKENS, MODEL, NGRAMS, REGULARISATION, OPTIMISATION, RUNNING)
"""Headings of the help, the most used ones first."""


@command(groups=GROUPS)
@click.argument("corpus", nargs=-1, shell_complete=complete_corpora)
@option("--name", metavar="NAME", group=RUN, help="Name of the run's folder in ./checkpoints.  [default: from CORPUS]")
@option(
    "--force",
    is_flag=True,
    group=RUN,
    help="Replace a run of the same name. With --resume, continue even if the corpus has changed.",
)
@resume_option(RUN)
@option(
    "--plan",
    "plan_only",
    is_flag=True,
    group=RUN,
    help="Print the settings and the expected number of epochs, and exit without training.",
)
@option(
    "--validation",
    multiple=True,
    metavar="CORPUS",
    group=TEXT,
    help="Validate on this text instead of the end of CORPUS; may be given several times.",
)
@option(
    "--time",
    "duration",
    type=Duration(0, 60 * 10**6, min_open=True),
    metavar="TIME",
    group=LENGTH,
    help="As --minutes, with a unit: 90s, 2m or 1h30m; a number alone is in seconds.",
)
@settings_options(TrainConfig, AUTOMATIC)
@settings_options(ModelConfig, AUTOMATIC)
@option(
    "--from",
    "pretrained",
    metavar="FILE|RUN",
    group=MODEL,
    help="Fine-tune this model: keep its shape and vocabulary, and add new tokens of CORPUS to the vocabulary.",
)
@glove_option(MODEL)
@option(
    "--field",
    metavar="NAME|N",
    group=TEXT,
    help="Train on this column of a table, or on this key of JSON lines: each record is a line. With a name, the first "
    "record is the header. A number counts columns from 1. A newline within a field is read as a space. It applies to "
    "--validation too.",
)
@table_option(TEXT)
@settings_options(TokenizerConfig, AUTOMATIC)
@option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    group=TEXT,
    help="Folder for the token ids of texts too long for memory.  [default: charlm in the user's cache folder]",
)
@option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    group=RUNNING,
    help="Device to train on; auto uses a GPU if there is one.",
)
@encoding_option
@errors_option("strict")
@threads_option
@quiet_option
def train(
    corpus: tuple[str, ...],
    name: str | None,
    force: bool,
    resume: str | None,
    plan_only: bool,
    validation: tuple[str, ...],
    pretrained: str | None,
    glove: Path | None,
    cache: Path | None,
    field: str | None,
    table: str | None,
    device: str,
    encoding: str,
    errors: str,
    threads: int | None,
    duration: float | None,
    quiet: bool,
    **settings: Any,
) -> None:
    """Train a model on a text.

    CORPUS is a file, a folder, a pattern, - for stdin, or a name listed by `charlm corpus`. Several are read
    one after the other, each from a new line. By default, the last tenth of the text is used for validation only.
    The model with the lowest validation loss is written to ./checkpoints/NAME/model.safetensors, and its path is
    printed. Ctrl-C saves and stops; --resume continues.

    Settings that are not given are chosen automatically, from the length of the text, the training length, and the
    measured speed of this machine. --plan shows them. The training length is one of --minutes, --time, --epochs and
    --steps. If none is given, training stops when the validation loss no longer falls.

    The n-grams of the text are counted first, and interpolated with the network if this lowers the validation loss.
    --cell ngram trains nothing else, in seconds.

    --from fine-tunes: a new run starts with the weights of a trained model. The learning rate is half of that of a new
    model unless --lr is given.

    \b
    Example:
      charlm train shakespeare --minutes 2
      charlm train shakespeare --minutes 60 --plan
      charlm train shakespeare --cell ngram
      charlm train shakespeare --tokenizer word --minutes 10
      cat a.txt b.txt | charlm train - --minutes 1 --name mine
      charlm train --resume mine
      charlm train letters.txt --from mine --minutes 1
    """
    started = time.monotonic()
    from charlm.training.request import Hardware, Request, TextOptions

    if duration is not None:
        settings["minutes"] = _minutes(duration, settings)
    request = Request(
        corpus=corpus,
        validation=validation,
        settings=settings,
        glove=glove,
        pretrained=pretrained,
        name=name,
        force=force,
        text=TextOptions(
            encoding=_if_given("encoding", encoding),
            errors=_if_given("errors", errors),
            cache=cache,
            field=field,
            table=table,
        ),
        hardware=Hardware(device=device, threads=threads, started=started),
        command=shlex.join(["charlm", *sys.argv[1:]]),
    )
    if settings["cell"] == NGRAM_CELL and resume is None:
        _train_ngrams(request, plan_only=plan_only, quiet=quiet)
        return
    with (
        StatusLine(quiet=quiet or os.environ.get("RANK", "0") != "0") as status,
        _prepare(request, resume, status.show, plan_only=plan_only) as training,
    ):
        status.clear()
        quiet = quiet or not training.machine.workers.is_first
        if plan_only:
            _show_plan(training)
            return
        signal_number = _train(training, status, quiet=quiet)
    if signal_number:
        click.get_current_context().exit(128 + signal_number)


def _minutes(duration: float, settings: dict[str, Any]) -> float:
    """Return the number of minutes of --time; end with a usage error if another training length is given too."""
    for name in ("minutes", "epochs", "steps"):
        if settings[name] is not None:
            raise click.UsageError(f"--time and --{name} contradict each other: give only one of them")
    show_as_typed("minutes", "--time", duration_text(duration))
    return duration / 60


def _if_given(parameter: str, value: str) -> str | None:
    """Return the value of an option, or None if it was not given."""
    source = click.get_current_context().get_parameter_source(parameter)
    return value if source == click.core.ParameterSource.COMMANDLINE else None


def _prepare(
    request: "Request", resume: str | None, announce: Callable[[str], None], *, plan_only: bool
) -> "AbstractContextManager[Training]":
    """Prepare a new training, or a resumed one; announce each part of the preparation."""
    if resume is not None:
        if request.validation or request.glove or request.pretrained or plan_only:
            raise click.UsageError("--validation, --glove, --from and --plan are for a new run: omit them")
        from charlm.training.resumption import prepare_resumed

        return prepare_resumed(request, resume or request.name or "", announce)
    _check_corpus(request)
    from charlm.training.setup import prepare_new

    return prepare_new(request, announce, dry_run=plan_only)


def _check_corpus(request: "Request") -> None:
    """End with a usage error if no text is given."""
    if not request.corpus:
        raise click.UsageError("Missing CORPUS: a file, a folder, - for stdin, or a name from `charlm corpus`")


def _train_ngrams(request: "Request", *, plan_only: bool, quiet: bool) -> None:
    """Train a model without a network, and print the results."""
    from charlm.cli.progress import print_summary
    from charlm.training.ngram_training import train_ngrams

    if plan_only:
        raise click.UsageError(f"--cell {NGRAM_CELL} has no network to plan: omit --plan")
    _check_corpus(request)
    with StatusLine(quiet=quiet) as status:
        trained = train_ngrams(request, status.show)
    for message in trained.notes:
        note(message, quiet=quiet)
    if not quiet:
        print_summary(trained.run, trained.progress, trained.units)
    click.echo(trained.run.model)


def _show_plan(training: "Training") -> None:
    """Print the notes and the plan."""
    from charlm.cli.plan_view import print_plan

    if training.machine.workers.is_first:
        for message in training.notes:
            note(message)
        print_plan(training)


def _train(training: "Training", status: StatusLine, *, quiet: bool) -> int:
    """Train and print the results. Return the number of the signal that ended the training, or 0."""
    from charlm.cli.plan_view import plan_text
    from charlm.cli.progress import ProgressView, is_unchanged, print_summary
    from charlm.cli.signals import StopSignals
    from charlm.training.callbacks import Callbacks

    for message in training.notes:
        note(message, quiet=quiet)
    if training.plan is not None and not quiet:
        text = plan_text(training.plan)
        click.echo(textwrap.fill(text, status.columns) if status.is_shown else text, err=True)
    first, units = training.machine.workers.is_first, training.dataset.loss_units
    view = ProgressView(training.train_config, units, status, quiet=quiet)
    show = view.warn if first else lambda message: None
    status.show("preparing the first update")
    with StopSignals() as stop:
        end = training.train(Callbacks(report=view, warn=show, stop=lambda: stop.number != 0))
    status.clear()
    if first and not training.run.model.exists():
        warn(f"stopped before the first update, so there is no model yet; charlm train --resume {training.run.name}")
        return stop.number
    if not quiet:
        print_summary(training.run, end, units)
    if first and end.fraction == 1 and is_unchanged(training.run, end):
        warn(
            "nothing was learned: no update lowered the validation loss, so the saved model is the one of --from, "
            f"unchanged; give more text, or --lr below {training.train_config.learning_rate:.2g}"
        )
    if first:
        click.echo(training.run.model)
    return stop.number
