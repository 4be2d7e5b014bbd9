"""Command `charlm lesson`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.completions import complete_lessons
from charlm.cli.figure import new_figure, save_figure
from charlm.cli.options import command, json_option, option, settings_options
from charlm.cli.status import StatusLine
from charlm.lessons import LESSONS, LessonOptions, Say

if TYPE_CHECKING:
    from types import ModuleType


@command()
@click.argument("name", required=False, shell_complete=complete_lessons)
@settings_options(LessonOptions, {"threads": "1; for the lesson shakespeare, chosen for the model and the machine"})
@option("--source", is_flag=True, help="Print the code of the lesson instead of running it.")
@option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also save a plot, in the format of the suffix, such as .png or .svg; for the lessons series, digits, "
    "batchnorm and reviews.",
)
@json_option
def lesson(name: str | None, source: bool, as_json: bool, plot: Path | None, **options: Any) -> None:
    """List the lessons, or run one.

    The lessons lead from one recurrent cell to a language model of Shakespeare's plays. Without NAME, lists them in
    order, with their approximate running times. With --json, prints only the numbers of a lesson.

    \b
    Example:
      charlm lesson
      charlm lesson cell
      charlm lesson lstm --source
      charlm lesson series --plot waves.png
    """
    if name is None:
        if source or plot or options["data"] or options["glove"] or options["cell"]:
            raise click.UsageError("these options need a lesson: give NAME; `charlm lesson` lists the lessons")
        _list_lessons(as_json)
        return
    _check(name, {**options, "plot": plot})
    if source:
        click.echo(_source(name), nl=False)
        return
    figure = None if plot is None else new_figure(plot, "--plot")  # before the lesson, which may take minutes
    module, figures = _run(name, options, as_json)
    if plot is not None:
        module.draw(figure, figures)
        save_figure(figure, plot, "--plot")


def _list_lessons(as_json: bool) -> None:
    import json
    from dataclasses import asdict

    if as_json:
        click.echo(json.dumps({name: asdict(entry) for name, entry in LESSONS.items()}))
        return
    for name, entry in LESSONS.items():
        click.echo(f"{name:11}  {entry.time:>5}  {entry.title}")


def _check(name: str, options: dict[str, Any]) -> None:
    """Refuse a name that is not a lesson, and options that the lesson does not have."""
    import difflib

    if name not in LESSONS:
        similar = difflib.get_close_matches(name, LESSONS, n=3)
        hint = f"did you mean {' or '.join(similar)}?" if similar else f"the lessons are {', '.join(LESSONS)}"
        raise click.BadParameter(f"no lesson {name!r}; {hint}", param_hint="NAME")
    for option_name in ("cell", "data", "glove", "plot"):
        if options[option_name] is not None and option_name not in LESSONS[name].takes:
            others = [other for other, entry in LESSONS.items() if option_name in entry.takes]
            raise click.UsageError(
                f"the lesson {name} has no option --{option_name}; the lessons that have it: {', '.join(others)}"
            )


def _source(name: str) -> str:
    import charlm.lessons

    return Path(charlm.lessons.__path__[0], f"{name}.py").read_text(encoding="utf-8")


def _run(name: str, options: dict[str, Any], as_json: bool) -> "tuple[ModuleType, dict[str, Any]]":
    """Run a lesson. Print its text and the command that runs the next lesson, or its figures as JSON."""
    import importlib
    import json

    from charlm.training.launch import check_pytorch
    from charlm.training.request import set_environment

    check_pytorch()
    settings = LessonOptions.pick(options)  # checked before PyTorch is started
    with StatusLine(quiet=as_json) as status:
        status.show("starting PyTorch")
        set_environment()
        import torch

        torch.set_flush_denormal(True)
        threads = settings.threads or LESSONS[name].threads
        if threads is not None:
            torch.set_num_threads(threads)
        module = importlib.import_module(f"charlm.lessons.{name}")
        say = Say(lambda text: None) if as_json else Say(_line_printer(status), status.show_if_due)
        figures: dict[str, Any] = module.run(say, settings)
    following = dict(zip(LESSONS, list(LESSONS)[1:], strict=False)).get(name)
    if as_json:
        click.echo(json.dumps(figures))
    elif following is not None:
        click.echo(f"\nNext lesson: {LESSONS[following].title}\n  charlm lesson {following}")
    return module, figures


def _line_printer(status: StatusLine) -> Callable[[str], None]:
    """Return a function that prints lines in place of a status."""

    def print_line(text: str) -> None:
        status.clear()
        click.echo(text)

    return print_line
