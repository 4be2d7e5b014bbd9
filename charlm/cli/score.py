"""`charlm score`."""

import sys
from typing import TYPE_CHECKING

import click

from charlm.cli.options import (
    encoding_option,
    errors_option,
    json_option,
    limit_threads,
    model_option,
    note,
    quiet_option,
    threads_option,
)

if TYPE_CHECKING:
    from charlm.engine import Engine


@click.command()
@click.argument("files", nargs=-1)
@model_option
@click.option("--total", is_flag=True, help="Score all text as one stream and print its figures.")
@json_option
@encoding_option
@errors_option("surrogateescape")
@threads_option
@quiet_option
def score(
    files: tuple[str, ...],
    model: str | None,
    total: bool,
    as_json: bool,
    encoding: str,
    errors: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Say how probable a model finds each line of a text.

    Reads FILES, or stdin if there are none or for -. For each line: bits a character, tab, the line. A line starts
    from the zero state after one newline; its own newline counts, unless the input lacks it. Characters that the
    model never saw cost what it gives its unknown token.

    \b
    Example:
      charlm score poems.txt | sort -n | head
      charlm score --total hamlet.txt
    """
    limit_threads(threads)
    from charlm.corpus import STDIN, read_corpus, read_lines
    from charlm.engine import Engine
    from charlm.runs import find_model

    engine = Engine.load(find_model(model))
    specs = files or (STDIN,)
    if total:
        _print_total(engine, read_corpus(specs, encoding=encoding, errors=errors).text, as_json)
        return
    blocks = read_lines(specs, encoding=encoding, errors=errors)
    unknowns = sum(_print_lines(engine, lines, as_json) for lines in blocks)
    if unknowns:
        note(f"{unknowns:,} tokens were unknown to the model", quiet=quiet)


def _print_total(engine: "Engine", text: str, as_json: bool) -> None:
    import json

    from charlm.scorer import score_text

    found = score_text(engine, text)
    figures = {
        "tokens": found.tokens,
        "characters": found.chars,
        "bytes": found.bytes,
        "unknown_tokens": found.unknowns,
        "nats_per_token": found.nats_per_token,
        "bits_per_token": found.bits_per_token,
        "nats_per_char": found.nats_per_char,
        "bits_per_char": found.bits_per_char,
        "bits_per_byte": found.bits_per_byte,
        "perplexity": found.perplexity,
        "perplexity_of_known": found.perplexity_of_known,
    }
    if as_json:
        click.echo(json.dumps(figures))
        return
    for name, value in figures.items():
        click.echo(f"{name}\t{value}" if isinstance(value, int) else f"{name}\t{value:.6f}")


def _print_lines(engine: "Engine", lines: list[str], as_json: bool) -> int:
    """Print the score of each line; returns how many tokens were unknown."""
    import json

    from charlm.scorer import score_lines

    out = sys.stdout
    scores = score_lines(engine, lines)
    for line, found in zip(lines, scores, strict=True):
        text = line.removesuffix("\n")
        if as_json:
            figures = {"bits_per_char": found.bits_per_char, "nats": found.nll_nats, "tokens": found.tokens}
            out.write(json.dumps({**figures, "unknown_tokens": found.unknowns, "text": text}) + "\n")
        else:
            out.write(f"{found.bits_per_char:.4f}\t{text}\n")
    out.flush()
    return sum(found.unknowns for found in scores)
