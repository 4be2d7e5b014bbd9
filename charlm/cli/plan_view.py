"""Display of a training plan: a line of text, or a table."""

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from charlm.cli.tables import print_table
from charlm.engine.checkpoint import num_parameters

if TYPE_CHECKING:
    from charlm.training.planner import Plan
    from charlm.training.setup import Training


def plan_text(plan: "Plan") -> str:
    """Return a plan in one line."""
    model, train = plan.model, plan.train
    dropout = f", dropout {model.dropout:g}" if model.dropout else ""
    return (
        f"Plan: {model.cell} {model.num_layers} x {model.hidden_size} ({num_parameters(model):,} parameters){dropout}, "
        f"{train.batch_size} x {train.seq_len} tokens per update, learning rate {train.learning_rate:.2g}, "
        f"{plan.throughput.tokens_per_second:,.0f} tokens/s in {train.precision}, "
        f"about {_epochs_text(plan.epochs)} epochs"
    )


def print_plan(training: "Training") -> None:
    """Print a plan as a table: the data, then each setting with its option, and whether it was given."""
    assert training.plan is not None, "a new training has a plan"
    print_table([*_facts(training, training.plan), ("", "", ""), *_settings(training.plan)])


def _facts(training: "Training", plan: "Plan") -> Iterator[tuple[str, str, str]]:
    dataset = training.dataset
    yield "training text", f"{dataset.num_train_tokens:,} tokens, vocabulary of {dataset.tokenizer.vocab_size:,}", ""
    yield "validation text", f"{len(dataset.val_ids):,} tokens", ""
    if dataset.items is not None:
        split = dataset.items
        yield "items", f"{len(split.train):,}, and {len(split.validation):,} to validate on", split.form.description
    yield "model", f"{num_parameters(plan.model):,} parameters", ""
    if training.ngram is not None:
        ngram = training.ngram
        yield "n-gram model", f"{ngram.num_ngrams:,} n-grams, order {ngram.order}, {ngram.num_bytes / 1e6:.1f} MB", ""
    yield "throughput", f"{plan.throughput.tokens_per_second:,.0f} tokens/s", "measured"
    yield "epochs", _epochs_text(plan.epochs), "expected"


def _settings(plan: "Plan") -> Iterator[tuple[str, str, str]]:
    for config in (plan.model, plan.train):
        for spec in fields(config):
            value, rule = getattr(config, spec.name), spec.metadata["rule"]
            if value is not None and rule.flags:
                yield rule.flags[-1].split("/")[0], value_text(value), "given" if spec.name in plan.given else ""


def _epochs_text(epochs: float) -> str:
    """Return a number of epochs with three digits, without an exponent."""
    return f"{epochs:.0f}" if epochs >= 100 else f"{epochs:.3g}"


def value_text(value: Any) -> str:  # noqa: ANN401 - the value of any setting
    """Return the value of a setting in a short form."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
