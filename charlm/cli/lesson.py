"""`charlm lesson`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.figure import new_figure
from charlm.cli.options import command, json_option, settings_options
from charlm.lessons import LESSONS, LessonOptions

if TYPE_CHECKING:
    from types import ModuleType


@command()
@click.argument("name", required=False)
@click.option("--source", is_flag=True, help="Print the lesson's code, which is written to be read.")
@settings_options(LessonOptions)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw a picture: .png, .svg, .pdf.")
@json_option
def lesson(name: str | None, source: bool, as_json: bool, plot: Path | None, **options: Any) -> None:
    """List the lessons, or run one.

    They lead from one recurrent cell to Shakespeare, in the order of the list. --json prints the figures only.

    \b
    Example:
      charlm lesson
      charlm lesson cell
      charlm lesson lstm --source
      charlm lesson series --plot waves.png
    """
    if name is None:
        if source or plot or options["data"] or options["cell"]:
            raise click.UsageError("name a lesson for that; `charlm lesson` lists them")
        _print_list(as_json)
        return
    _check(name, {**options, "plot": plot})
    if source:
        click.echo(_path(name).read_text(encoding="utf-8"), nl=False)
        return
    figure = None if plot is None else new_figure(plot, "--plot")
    module, figures = _run(name, options, as_json)
    if as_json:
        import json

        click.echo(json.dumps(figures))
    if figure is not None:
        module.draw(figure, figures)
        try:
            figure.savefig(plot)
        except OSError as error:
            raise click.ClickException(f"--plot {plot}: cannot be written ({error.strerror})") from None


def _print_list(as_json: bool) -> None:
    import json
    from dataclasses import asdict

    if as_json:
        click.echo(json.dumps({name: asdict(entry) for name, entry in LESSONS.items()}))
        return
    for name, entry in LESSONS.items():
        click.echo(f"{name:11}  {entry.time:>5}  {entry.title}")


def _check(name: str, options: dict[str, Any]) -> None:
    """Refuse a lesson that there is not, and options that it does not take."""
    import difflib

    if name not in LESSONS:
        near = difflib.get_close_matches(name, LESSONS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(LESSONS)}"
        raise click.BadParameter(f"no lesson {name!r}; {hint}", param_hint="NAME")
    for option in ("cell", "data", "plot"):
        if options[option] is not None and option not in LESSONS[name].takes:
            takers = [taker for taker, entry in LESSONS.items() if option in entry.takes]
            raise click.UsageError(f"the lesson {name} takes no --{option}: {', '.join(takers)} can")


def _path(name: str) -> Path:
    import charlm.lessons

    return Path(charlm.lessons.__path__[0]) / f"{name}.py"


def _run(name: str, given: dict[str, Any], as_json: bool) -> "tuple[ModuleType, dict[str, Any]]":
    """Run a lesson, and say which one comes next."""
    import importlib

    import torch

    torch.set_flush_denormal(True)
    module = importlib.import_module(f"charlm.lessons.{name}")
    say = (lambda line: None) if as_json else click.echo
    figures: dict[str, Any] = module.run(say, LessonOptions.pick(given))
    following = dict(zip(LESSONS, list(LESSONS)[1:], strict=False)).get(name)
    if following is not None and not as_json:
        click.echo(f"Next, {LESSONS[following].title}:\n  charlm lesson {following}")
    return module, figures
