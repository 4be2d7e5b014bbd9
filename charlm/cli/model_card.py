"""Model card: what a person who gets a model file should know, as a dictionary and as a Markdown page."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.config import CELLS, NGRAM_CELL
from charlm.engine.checkpoint import num_parameters
from charlm.engine.runs import name_of_model
from charlm.text.printable import escape_unprintable

if TYPE_CHECKING:
    from charlm.engine.checkpoint import Checkpoint

METRICS = {
    "val_nats": ("cross-entropy", "nats per token"),
    "val_bits_per_char": ("cross-entropy", "bits per character"),
    "val_perplexity": ("perplexity", "per token"),
    "val_nats_adaptive": ("cross-entropy with --adapt", "nats per token"),
}
"""Names and units of the metrics of a validation text."""

METRICS_OF_PARTS = {
    "val_nats_network": ("cross-entropy of the network alone", "nats per token"),
    "val_nats_ngram": ("cross-entropy of the n-grams alone", "nats per token"),
}
"""Names and units of the metrics of a model that has both parts."""

LIMITS = (
    "The model knows only the language and the kind of text that it was trained on.",
    "Its texts may repeat parts of the training text; `charlm novelty` measures how much.",
    "Its texts state nothing: names, facts and quotations in them are invented.",
)
"""Limits of every model."""


def model_card(path: Path, checkpoint: "Checkpoint") -> dict[str, Any]:
    """Return the card of a model. A fact that the file does not have is left out.

    Args:
        path: The model file.
        checkpoint: Its content.
    """
    metadata = checkpoint.metadata
    metrics, corpus, validation, training = (
        found if isinstance(found := metadata.get(key), dict) else {}
        for key in ("metrics", "corpus", "validation", "training")
    )
    has_parts = checkpoint.config.cell in CELLS and checkpoint.counts is not None
    evaluation = [
        {"metric": metric, "unit": unit, "value": metrics[key]}
        for key, (metric, unit) in (METRICS | METRICS_OF_PARTS if has_parts else METRICS).items()
        if isinstance(metrics.get(key), int | float)
    ]
    share = training.get("val_fraction")
    whole = "items of the training list" if "items" in metadata else "training text, from its end"
    held_out = f"{share:.0%} of the {whole}" if isinstance(share, float) and share else ""
    file = shlex.quote(path.name)
    return {
        "name": name_of_model(path),
        "summary": _summary(checkpoint),
        "tags": [
            "language-model",
            checkpoint.config.cell,
            *([NGRAM_CELL] if has_parts else []),
            f"{checkpoint.tokenizer.kind}-level",
        ],
        "training_text": _text_facts(corpus),
        "training": {"command": metadata.get("command"), "charlm": metadata.get("charlm")},
        "evaluation_text": _text_facts(validation)["name"] if validation else held_out,
        "evaluation": evaluation if validation or held_out else [],
        "usage": [f"charlm sample -m {file}", f"charlm score -m {file} FILE"],
        "limits": list(LIMITS),
    }


def card_markdown(card: dict[str, Any]) -> str:
    """Return a card as Markdown, with the metadata that model hubs read at the top."""
    return "\n".join(_lines(card))


def _lines(card: dict[str, Any]) -> Iterator[str]:
    yield from ("---", "library_name: charlm", "pipeline_tag: text-generation")
    yield from (f"tags: {json.dumps(card['tags'])}", "---", "", f"# {_plain(card['name'])}", "", card["summary"])
    yield from ("", "## Training text", "")
    yield from (f"- {name}: {_code(value)}" for name, value in card["training_text"].items())
    yield from ("", "## Training", "")
    yield from (f"- {name}: {_code(value)}" for name, value in card["training"].items() if value is not None)
    if card["evaluation"]:
        yield from ("", "## Evaluation", "", f"Validation text: {_plain(card['evaluation_text'])}.", "")
        yield from ("| metric | value |", "|---|---|")
        yield from (f"| {row['metric']}, {row['unit']} | {row['value']:.4f} |" for row in card["evaluation"])
    yield from ("", "## Use", "", *(f"    {escape_unprintable(line)}" for line in card["usage"]))
    yield from ("", "## Limits", "", *(f"- {line}" for line in card["limits"]))


def _summary(checkpoint: "Checkpoint") -> str:
    """Return one sentence on the kind and the size of a model."""
    config, unit = checkpoint.config, {"char": "characters", "word": "words"}[checkpoint.tokenizer.kind]
    counts = checkpoint.counts
    ngrams = "" if counts is None else f"{counts.ngram.num_ngrams:,} n-grams up to order {counts.ngram.order}"
    if config.cell not in CELLS:
        return f"N-gram language model of {unit}: {ngrams}, and a vocabulary of {config.vocab_size:,}."
    layers = (
        f"{config.num_layers} {config.cell.upper()} layer{'s' * (config.num_layers > 1)} of {config.hidden_size} units"
    )
    size = f"{num_parameters(config):,} parameters and a vocabulary of {config.vocab_size:,}"
    interpolated = f" Its probabilities are interpolated with those of {ngrams}." if ngrams else ""
    return f"Recurrent language model of {unit}: {layers}, {size}.{interpolated}"


def _text_facts(text: dict[str, Any]) -> dict[str, Any]:
    """Return name, sources, length and checksum of a text, as far as they are known."""
    return {"name": "unknown", **{key: text[key] for key in ("name", "sources", "characters", "sha256") if key in text}}


def _plain(text: object) -> str:
    """Return text from a model file without characters that have a meaning in Markdown or HTML."""
    return "".join(f"\\{char}" if char in r"\`*_[]<>#|&" else char for char in escape_unprintable(str(text)))


def _code(value: object) -> str:
    """Return a value as inline code."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"`{escape_unprintable(text).replace('`', chr(39))}`"
