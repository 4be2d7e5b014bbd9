"""`charlm lesson`."""

import click

from charlm.cli.options import json_option


@click.command()
@click.argument("name", required=False)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Seed of the weights.")
@json_option
def lesson(name: str | None, seed: int, as_json: bool) -> None:
    """List the lessons, or run one.

    \b
    Example:
      charlm lesson hello
    """
    import importlib
    import json

    from charlm.lessons import LESSONS

    if name is None:
        click.echo(json.dumps(LESSONS) if as_json else "\n".join(f"{key}\t{title}" for key, title in LESSONS.items()))
        return
    if name not in LESSONS:
        raise click.BadParameter(f"no lesson {name!r}; there is {', '.join(LESSONS)}", param_hint="NAME")
    figures = importlib.import_module(f"charlm.lessons.{name}").run(
        (lambda line: None) if as_json else click.echo, seed
    )
    if as_json:
        click.echo(json.dumps(figures))
