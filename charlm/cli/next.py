"""`charlm next`."""

import click

from charlm.cli.options import command, json_option, model_option, note_unknown
from charlm.cli.threads import limit_threads


@command(name="next")
@model_option
@click.option("--prime", default="", help="The text before.  [default: the start of a line]")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="How many tokens to print.")
@json_option
def next(model: str | None, prime: str, top: int, as_json: bool) -> None:
    """Print the likeliest next tokens after a prompt.

    A line each: probability, tab, token (a newline as \\n).

    \b
    Example:
      charlm next --prime 'To be, or not to b'
    """
    import json

    from charlm.engine.runs import find_model

    path = find_model(model)
    limit_threads(None, path)
    from charlm.engine.rnn import RecurrentNetwork
    from charlm.engine.sampler import next_tokens
    from charlm.text.printable import escape_unprintable

    network = RecurrentNetwork.load(path)
    note_unknown(network.tokenizer.unknown_in(prime))
    ranked = next_tokens(network, prime)[:top]
    if as_json:
        click.echo(json.dumps([{"token": token, "probability": probability} for token, probability in ranked]))
        return
    for token, probability in ranked:
        click.echo(f"{probability:.6f}\t{escape_unprintable(token)}")
