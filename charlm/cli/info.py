"""Command `charlm info`."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.completions import complete_models
from charlm.cli.options import command, json_option, model_option, option
from charlm.cli.tables import print_table
from charlm.config import NGRAM_CELL

if TYPE_CHECKING:
    from charlm.engine.checkpoint import Checkpoint


@command()
@click.argument("named", metavar="[FILE|RUN]", required=False, shell_complete=complete_models)
@model_option
@option("--card", is_flag=True, help="Print a model card instead: a Markdown page to publish with the model.")
@json_option
def info(named: str | None, model: str | None, card: bool, as_json: bool) -> None:
    """Show the metadata of a model.

    Prints the size of the file, the shape of the model, the training text, the settings of the training and the losses.
    The model is given as an argument or with -m. In a pipe, each line has a section, a name and a value, separated by
    tabs. With --json, the vocabulary and the model card are included.

    \b
    Example:
      charlm info
      charlm info shakespeare --json
      charlm info shakespeare --card > README.md
    """
    if named is not None and model is not None:
        raise click.UsageError(f"{named} and -m {model}: name only one model")
    if card and as_json:
        raise click.UsageError("--card and --json contradict each other: --json includes the card")
    import json

    from charlm.cli.model_card import card_markdown
    from charlm.engine.classifier_file import is_classifier
    from charlm.engine.runs import find_model

    path = find_model(named if model is None else model)
    facts, details = (_classifier_facts if is_classifier(path) else _model_facts)(path)
    if card and "card" not in details:
        raise click.ClickException(f"{path}: a text classifier, not a language model: it has no model card")
    if card:
        click.echo(card_markdown(details["card"]))
    elif as_json:
        click.echo(json.dumps(_finite({**facts, **details}), indent=2, allow_nan=False))
    else:
        print_table(_rows({name: value for name, value in facts.items() if value != 0}))  # without a network


def _model_facts(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the facts about a language model, and the details for JSON, some of which replace a fact."""
    from charlm.cli.model_card import model_card
    from charlm.engine.checkpoint import load_checkpoint, num_parameters
    from charlm.engine.runs import origin_of_model

    checkpoint = load_checkpoint(path)
    facts = {
        "file": str(path),
        "origin": origin_of_model(path),
        "bytes": path.stat().st_size,
        "parameters": num_parameters(checkpoint.config),
        "model": _shape_facts(checkpoint),
        "tokenizer": {"kind": checkpoint.tokenizer.kind, "vocab_size": checkpoint.tokenizer.vocab_size},
        **_ngram_facts(checkpoint),
        **_spelling_facts(checkpoint),
        **_adaptive_facts(checkpoint),
        **checkpoint.metadata,
    }
    details = {"tokenizer": checkpoint.tokenizer.to_dict(), "card": model_card(path, checkpoint)}
    if checkpoint.counts is not None and checkpoint.counts.gate is not None:
        details["ngram"] = {**facts["ngram"], **checkpoint.counts.weights_to_dict()}
    return facts, details


def _classifier_facts(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the facts about a classifier, and the vocabulary of its network."""
    from charlm.engine.classifier_file import load_classifier, num_classifier_parameters

    checkpoint = load_classifier(path)
    facts = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "parameters": num_classifier_parameters(checkpoint),
        "classifier": asdict(checkpoint.config),
        "classes": {"labels": list(checkpoint.labels)},
        "shares": dict(zip(checkpoint.labels, map(math.exp, checkpoint.prior), strict=True)),
        "weights": dict(checkpoint.weights),
        "tokenizer": {"kind": checkpoint.tokenizer.kind, "vocab_size": checkpoint.tokenizer.vocab_size},
        **{name: value for name, value in checkpoint.metadata.items() if name != "history"},
    }
    return facts, {"tokenizer": checkpoint.tokenizer.to_dict()}


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a value in which None stands for numbers that JSON does not have, such as infinity."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


def _shape_facts(checkpoint: "Checkpoint") -> dict[str, Any]:
    """Return the shape of the model. Without a network, most settings have no meaning."""
    config = asdict(checkpoint.config)
    return {name: config[name] for name in ("vocab_size", "cell")} if config["cell"] == NGRAM_CELL else config


def _ngram_facts(checkpoint: "Checkpoint") -> dict[str, Any]:
    """Return the facts about the n-gram model, if the file has one."""
    counts = checkpoint.counts
    if counts is None:
        return {}
    num_bytes = sum(array.nbytes for array in counts.ngram.to_tensors().values())
    facts: dict[str, Any] = {"order": counts.ngram.order, "ngrams": counts.ngram.num_ngrams, "bytes": num_bytes}
    if checkpoint.config.cell != NGRAM_CELL:
        facts["weight"] = counts.weight
    if counts.gate is not None:
        facts["gate"] = "weights depend on the predictions; weight is their mean"
    return {"ngram": facts}


def _spelling_facts(checkpoint: "Checkpoint") -> dict[str, Any]:
    """Return the facts about the spelling model of a word model, if the file has one."""
    spelling = checkpoint.spelling
    return {} if spelling is None else {"spelling": {"order": spelling.order, "characters": len(spelling.chars)}}


def _adaptive_facts(checkpoint: "Checkpoint") -> dict[str, Any]:
    """Return the facts about the constants of the adaptive part, if the file has them."""
    adaptation = checkpoint.adaptation
    return {} if adaptation is None else {"adaptive": {"context_lengths": list(adaptation.context_lengths)}}


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
        return f"{value:,.0f}" if 10_000 <= abs(value) < 10**15 else f"{value:,.5g}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value_text(entry)}" for name, entry in value.items() if entry is not None)
    return str(value)
