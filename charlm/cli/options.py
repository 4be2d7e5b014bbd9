"""Options that several commands share, and options made from settings classes."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import click

from charlm.config import Rule, Settings
from charlm.text.printable import escape_unprintable

F = TypeVar("F", bound=Callable[..., Any])

model_option = click.option(
    "-m",
    "--model",
    "model",
    metavar="FILE|RUN",
    help="Model file or run.  [default: newest run in ./checkpoints]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print no notes and no progress on stderr.")
encoding_option = click.option("--encoding", default="utf-8", show_default=True, help="Encoding of the text.")
threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Threads to compute with.  [default: what suits the model and the machine]",
)
corpus_option = click.option(
    "--corpus",
    multiple=True,
    metavar="CORPUS",
    help="Text to compare with, as for charlm train.  [default: the training text, kept beside the model]",
)


def errors_option(default: str) -> Callable[[F], F]:
    """`--errors`: what to do with bytes that are not of the encoding."""
    return click.option(
        "--errors",
        type=click.Choice(["strict", "replace", "ignore", "surrogateescape"]),  # charlm.text.sources.ERRORS
        default=default,
        show_default=True,
        help="What to do with bytes that are not of the encoding.",
    )


def settings_options(settings: type[Settings]) -> Callable[[F], F]:
    """An option for each field of a settings class that has a name on the command line.

    Options that are not given are None: the class's defaults, which the help shows, apply.
    """
    hints = get_type_hints(settings)

    def decorate(command: F) -> F:
        for spec in reversed(fields(settings)):
            rule: Rule | None = spec.metadata.get("rule")
            if rule is None or not rule.flags:
                continue
            default = None if spec.default is MISSING else spec.default
            shown = {True: "on", False: "off"}.get(default, default) if isinstance(default, bool) else default
            note = "" if default is None or "[default:" in rule.help else f"  [default: {shown}]"
            kinds = [kind for kind in get_args(hints[spec.name]) or (hints[spec.name],) if kind is not type(None)]
            option_type = click.Choice(rule.choices) if rule.choices else kinds[0]
            flag_type: dict[str, Any] = {"is_flag": True} if option_type is bool else {"type": option_type}
            command = click.option(*rule.flags, spec.name, default=None, help=rule.help + note, **flag_type)(command)
        return command

    return decorate


THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
BYTES_PER_THREAD = 1_500_000
"""Of weights: with fewer, threads cost more to wake than they save, since one core's cache holds them all."""
MOST_THREADS = 8
"""More than these wait for memory, not for each other's work."""


def limit_threads(threads: int | None, model: Path, rows: int = 1, *, apart: bool = False) -> int:
    """Let NumPy's linear algebra use as many threads as it can make good use of.

    This works only before NumPy is imported: so the size of the model's file has to tell. Cores that others keep busy
    are left to them, where threads wait for each other: on a full machine such were measured to be thirty times slower
    than one. What the user's environment says already goes before all that.

    Args:
        threads: How many, if it has been said.
        model: The model's file.
        rows: Sequences that will be read side by side: with many, smaller matrices are worth sharing out.
        apart: Whether threads of Python will share out the sequences, so that each product has one thread.

    Returns:
        How many threads of Python may do so; 1 if they don't.
    """
    import os

    if threads is None:
        if any(variable in os.environ for variable in THREAD_VARIABLES):
            return 1
        most = _cores() if apart else min(_free_cores(), MOST_THREADS)
        threads = max(1, min(most, round(model.stat().st_size * min(rows, 8) / BYTES_PER_THREAD)))
    for variable in THREAD_VARIABLES:
        os.environ[variable] = "1" if apart else str(threads)
    return threads if apart else 1


def _cores() -> int:
    """Cores that this process may use."""
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_cores() -> int:
    """Of those the ones that nobody else uses, by the load of the last minute."""
    import math
    import os

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return max(1, math.ceil(_cores() - load))


def wait_note(files: Sequence[str], *, quiet: bool) -> None:
    """Say what is waited for, where it would come from a terminal."""
    if not quiet and (not files or "-" in files) and sys.stdin.isatty():
        note("reading from the terminal; Ctrl-D ends the text")


def note(message: str, *, quiet: bool = False) -> None:
    """Say something on stderr."""
    if not quiet:
        click.echo(f"Note: {escape_unprintable(message)}", err=True)


def warn(message: str) -> None:
    """Say on stderr what its user must know, quiet or not."""
    click.echo(f"Warning: {escape_unprintable(message)}", err=True)


def note_unknown(tokens: Sequence[str], *, quiet: bool = False) -> None:
    """Say which parts of a prompt are unknown to the model, if any are."""
    if tokens:
        named = ", ".join(map(repr, tokens[:10])) + (f" and {len(tokens) - 10} more" if len(tokens) > 10 else "")
        note(f"the model has never seen {named}; it reads its unknown token instead", quiet=quiet)
