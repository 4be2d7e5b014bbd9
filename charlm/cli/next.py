"""Command `charlm next`."""

import click

from charlm.cli.adapt import adapt_option, open_adaptive
from charlm.cli.mix import mix_option, open_mixed
from charlm.cli.options import EscapedText, command, json_option, model_option, note_unknown, option, top_option
from charlm.cli.threads import limit_threads
from charlm.text.escapes import ESCAPES_HELP
from charlm.text.line_ends import fold_line_ends


@command(name="next")
@model_option
@mix_option()
@option(
    "--prime",
    "prompt",
    type=EscapedText(),
    metavar="TEXT",
    default="",
    help=f"Text before the token. {ESCAPES_HELP}  [default: the start of a line]",
)
@adapt_option("Learn from the prompt too: what has occurred in it becomes more probable.")
@top_option("tokens")
@json_option
def next(model: str | None, mix: tuple[str, ...], prompt: str, adapt: bool, top: int, as_json: bool) -> None:
    """Show the most probable next tokens.

    Prints one line per token, the most probable first: its probability from 0 to 1, a tab, and the token. Newlines and
    unprintable characters are escaped, for example as \\n.

    \b
    Example:
      charlm next --prime 'To be, or not to b'
      charlm next -m plays --mix sonnets:0.3 --prime 'To be'
    """
    import json

    from charlm.engine.runs import find_model

    path = find_model(model)
    limit_threads(None, path)
    from charlm.engine.checkpoint import load_checkpoint
    from charlm.engine.sampler import next_tokens
    from charlm.text.printable import escape_unprintable

    checkpoint = load_checkpoint(path)
    predictor = open_mixed(checkpoint, mix)
    if adapt:
        predictor = open_adaptive(predictor, checkpoint)
    note_unknown(predictor.tokenizer.unknown_in(fold_line_ends(prompt)))
    ranked = next_tokens(predictor, prompt)[:top]
    if as_json:
        click.echo(json.dumps([{"token": token, "probability": probability} for token, probability in ranked]))
        return
    for token, probability in ranked:
        click.echo(f"{probability:.6f}\t{escape_unprintable(token)}")
