"""Command `charlm corpus`."""

import click

from charlm.cli.completions import complete_named_corpora
from charlm.cli.options import command, json_option
from charlm.cli.streams import write_text


@command()
@click.argument("name", required=False, shell_complete=complete_named_corpora)
@json_option
def corpus(name: str | None, as_json: bool) -> None:
    """List the named corpora, or print one.

    Without NAME, prints the name and the description of each corpus. With NAME, prints the text of that corpus.

    \b
    Example:
      charlm corpus
      charlm corpus shakespeare | head
    """
    import json

    from charlm.text.named_corpora import NAMED_CORPORA
    from charlm.text.sources import read_named

    if name is not None:
        write_text(read_named(name))
        return
    descriptions = {known: entry.description for known, entry in NAMED_CORPORA.items()}
    if as_json:
        click.echo(json.dumps(descriptions))
    else:
        click.echo("\n".join(f"{known}\t{description}" for known, description in descriptions.items()))
