"""`charlm corpus`."""

import click

from charlm.cli.options import command, json_option


@command()
@click.argument("name", required=False)
@json_option
def corpus(name: str | None, as_json: bool) -> None:
    """List the named corpora, or print one.

    \b
    Example:
      charlm corpus
      charlm corpus shakespeare | head
    """
    import json

    from charlm.text.named_corpora import NAMED_CORPORA
    from charlm.text.sources import read_named

    if name is not None:
        click.echo(read_named(name), nl=False)
    elif as_json:
        click.echo(json.dumps({name: entry.description for name, entry in NAMED_CORPORA.items()}))
    else:
        for known, entry in NAMED_CORPORA.items():
            click.echo(f"{known}\t{entry.description}")
