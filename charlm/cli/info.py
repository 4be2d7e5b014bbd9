"""Command `charlm info`."""

import math
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.completions import complete_models
from charlm.cli.options import command, json_option, model_option
from charlm.cli.tables import print_table

if TYPE_CHECKING:
    from charlm.engine.checkpoint import Checkpoint


@command()
@click.argument("named", metavar="[FILE|RUN]", required=False, shell_complete=complete_models)
@model_option
@json_option
def info(named: str | None, model: str | None, as_json: bool) -> None:
    """Show the metadata of a model.

    Prints the size of the file, the shape of the model, the training text, the settings of the training and the losses.
    The model is given as an argument or with -m. In a pipe, each line has a section, a name and a value, separated by
    tabs.

    \b
    Example:
      charlm info
      charlm info shakespeare --json
    """
    if named is not None and model is not None:
        raise click.UsageError(f"{named} and -m {model}: name only one model")
    import json
    from dataclasses import asdict

    from charlm.engine.checkpoint import load_checkpoint, num_parameters
    from charlm.engine.runs import find_model

    path = find_model(named if model is None else model)
    checkpoint = load_checkpoint(path)
    facts = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "parameters": num_parameters(checkpoint.config),
        "model": asdict(checkpoint.config),
        "tokenizer": {"kind": checkpoint.tokenizer.kind, "vocab_size": checkpoint.tokenizer.vocab_size},
        **_spelling_facts(checkpoint),
        **checkpoint.metadata,
    }
    if as_json:
        everything = {**facts, "tokenizer": checkpoint.tokenizer.to_dict()}
        click.echo(json.dumps(_finite(everything), indent=2, allow_nan=False))
    else:
        print_table(_rows(facts))


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a value in which None stands for numbers that JSON does not have, such as infinity."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


def _spelling_facts(checkpoint: "Checkpoint") -> dict[str, Any]:
    """Return the facts about the spelling model of a word model, if the file has one."""
    spelling = checkpoint.spelling
    return {} if spelling is None else {"spelling": {"order": spelling.order, "characters": len(spelling.chars)}}


def _rows(facts: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return one row per fact: section, name, value. Facts without a value are left out."""
    rows = []
    for section, value in facts.items():
        entries = value.items() if isinstance(value, dict) else [("", value)]
        rows += [(section, name, _value_text(entry)) for name, entry in entries if entry is not None]
    return rows


def _value_text(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Return a value as text, with thousands separators in numbers."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.5g}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
