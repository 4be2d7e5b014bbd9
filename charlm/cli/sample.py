"""`charlm sample`."""

import sys
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.options import (
    limit_threads,
    model_option,
    note,
    quiet_option,
    settings_options,
    threads_option,
)
from charlm.config import SampleConfig

if TYPE_CHECKING:
    from charlm.sampler import Sampler

SEPARATOR = "-" * 8


@click.command()
@model_option
@settings_options(SampleConfig)
@click.option("--prime", default="", help="Text to go on from; - reads it from stdin.  [default: the start of a line]")
@threads_option
@quiet_option
def sample(model: str | None, prime: str, threads: int | None, quiet: bool, **settings: Any) -> None:
    """Write text with a model.

    The prompt is written first, then what the model makes of it, as it is made. Samples after the first follow
    a line of dashes.

    \b
    Example:
      charlm sample --temp 0.8 -n 500
      charlm sample --prime 'ROMEO:' --seed 7
      charlm sample -n -1 | head -100
    """
    limit_threads(threads)
    from charlm.engine import Engine
    from charlm.runs import find_model
    from charlm.sampler import Sampler

    config = SampleConfig.pick(settings)
    engine = Engine.load(find_model(model))
    if prime == "-":
        prime = sys.stdin.read().removesuffix("\n")
    if unknown := engine.tokenizer.unknown_in(prime):
        note(
            f"the model has never seen {', '.join(map(repr, unknown))}; it reads its unknown token instead",
            quiet=quiet,
        )
    sampler = Sampler(engine, config)
    _write(sampler, prime, config.count)


def _write(sampler: "Sampler", prime: str, count: int) -> None:
    """Write the first sample as it is made, and the others, made along with it, after it."""
    out = sys.stdout
    out.write(prime)
    later: list[list[str]] = [[prime] for _ in range(count - 1)]
    last = prime
    for first, *others in sampler.stream(prime):
        out.write(first)
        out.flush()
        last = first or last
        for pieces, piece in zip(later, others, strict=True):
            pieces.append(piece)
    for text in (None, *map("".join, later)):
        if text is not None:
            out.write(f"{SEPARATOR}\n{text}")
            last = text
        if not last.endswith("\n"):
            out.write("\n")
