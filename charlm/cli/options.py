"""Options that several commands share, and options made from settings classes."""

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_args, get_type_hints

import click

from charlm.config import Rule, Settings
from charlm.terminal import shown

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
    help="Threads to compute with.  [default: as many as cores]",
)


def errors_option(default: str) -> Callable[[F], F]:
    """`--errors`: what to do with bytes that are not of the encoding."""
    return click.option(
        "--errors",
        type=click.Choice(["strict", "replace", "ignore", "surrogateescape"]),  # charlm.corpus.ERRORS
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
            note = "" if default is None else f"  [default: {shown}]"
            kinds = [kind for kind in get_args(hints[spec.name]) or (hints[spec.name],) if kind is not type(None)]
            option_type = click.Choice(rule.choices) if rule.choices else kinds[0]
            flag_type: dict[str, Any] = {} if option_type is bool else {"type": option_type}
            command = click.option(*rule.flags, spec.name, default=None, help=rule.help + note, **flag_type)(command)
        return command

    return decorate


def limit_threads(threads: int | None) -> None:
    """Let NumPy's linear algebra use so many threads; works only before NumPy is imported."""
    import os

    if threads is not None:
        for variable in (
            "OPENBLAS_NUM_THREADS",
            "MKL_NUM_THREADS",
            "OMP_NUM_THREADS",
            "VECLIB_MAXIMUM_THREADS",
        ):
            os.environ[variable] = str(threads)


def note(message: str, *, quiet: bool = False) -> None:
    """Say something on stderr."""
    if not quiet:
        click.echo(f"Note: {shown(message)}", err=True)


def warn(message: str) -> None:
    """Say on stderr what its user must know, quiet or not."""
    click.echo(f"Warning: {shown(message)}", err=True)
