"""Command `charlm export`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.options import command, model_option, note

if TYPE_CHECKING:
    from charlm.engine.checkpoint import Checkpoint

ONNX = ".onnx"
FORMATS = {".html": "a web page", ONNX: "an ONNX graph"}
"""Endings of the files that can be written, and what they are."""


@command()
@click.argument("file", type=click.Path(dir_okay=False))
@model_option
def export(file: str, model: str | None) -> None:
    """Write a model to a file that other programs can use.

    The ending of FILE chooses the format:

    \b
      .html  a page that runs the model in a browser: it writes text and shows the
             surprisal of a text. It needs no server and no network. Weights are
             rounded to half precision.
      .onnx  a graph for ONNX runtimes, in many languages. It needs the package
             onnx (pip install onnx). It has the network alone: an n-gram part is
             left out.

    An existing file is replaced. The path of the file is printed.

    \b
    Example:
      charlm export page.html
      charlm export -m shakespeare model.onnx
    """
    if not file:
        raise click.UsageError("FILE: the name is empty")
    target = Path(file)
    build = _builder(target)
    from charlm.atomic import atomic_write
    from charlm.engine.checkpoint import load_checkpoint
    from charlm.engine.runs import find_model, name_of_model

    path = find_model(model)
    checkpoint = load_checkpoint(path)
    content = build(checkpoint, name_of_model(path))
    try:
        with atomic_write(target) as stream:
            stream.write(content)
    except OSError as error:
        raise click.ClickException(f"{file}: cannot be written ({error.strerror}); nothing was changed") from None
    if target.suffix.lower() == ONNX and checkpoint.counts is not None:
        note(f"the n-gram part of the model is left out{_loss_without_counts(checkpoint.metadata)}")
    click.echo(file)


def _loss_without_counts(metadata: dict[str, Any]) -> str:
    """Return what the validation loss is without the n-gram part, as the end of a note."""
    match metadata:
        case {"metrics": {"val_nats": float(both), "val_nats_network": float(network)}}:
            return f": the validation loss is {network:.4f} instead of {both:.4f} nats per token"
    return ": the loss is higher than that of the model file"


def _builder(file: Path) -> "Callable[[Checkpoint, str], bytes]":
    """Return the function that builds the content of a file, chosen by its ending.

    Raises:
        click.UsageError: If the ending is none of `FORMATS`, or there is no folder for the file.
    """
    if file.suffix.lower() not in FORMATS:
        known = " or ".join(f"{ending} ({what})" for ending, what in FORMATS.items())
        raise click.UsageError(f"{file}: the name must end in {known}")
    if not file.parent.is_dir():
        raise click.UsageError(f"{file}: there is no folder {file.parent}")
    if file.suffix.lower() == ONNX:
        from charlm.engine.onnx_export import onnx_bytes

        return onnx_bytes
    from charlm.engine.page_export import page_bytes

    return page_bytes
