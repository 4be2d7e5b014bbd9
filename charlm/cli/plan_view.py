"""Shows what a training will be, before it begins."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from charlm.engine.checkpoint import num_parameters
from charlm.training.planner import Plan
from charlm.training.setup import Job


def plan_text(plan: Plan) -> str:
    """A plan in one line."""
    model, train = plan.model, plan.train
    dropped = f", dropout {model.dropout:g}" if model.dropout else ""
    return (
        f"Plan: {model.cell} {model.num_layers} x {model.hidden_size} ({num_parameters(model):,} parameters){dropped}, "
        f"{train.batch_size} x {train.seq_len} tokens an update, rate {train.learning_rate:.2g}, "
        f"{plan.throughput.tokens_per_second:,.0f} tokens/s in {train.precision}, about {plan.epochs:.3g} epochs"
    )


def print_plan(job: Job) -> None:
    """Print a plan as a table: what is to be learnt, each setting with its option, and whether it was given."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    assert job.plan is not None, "a new training has a plan"
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value, how in (*_facts(job, job.plan), ("", "", ""), *_settings(job.plan)):
        table.add_row(Text(name, style="bold"), Text(value), Text(how))
    Console().print(table)


def _facts(job: Job, plan: Plan) -> Iterator[tuple[str, str, str]]:
    dataset = job.dataset
    yield "text", f"{len(dataset.train_ids):,} tokens, {dataset.tokenizer.vocab_size:,} different", ""
    yield "validation", f"{len(dataset.val_ids):,} tokens", ""
    yield "model", f"{num_parameters(plan.model):,} parameters", ""
    yield "speed", f"{plan.throughput.tokens_per_second:,.0f} tokens/s", "timed"
    yield "epochs", f"{plan.epochs:.3g}", "expected"


def _settings(plan: Plan) -> Iterator[tuple[str, str, str]]:
    for part in (plan.model, plan.train):
        for spec in fields(part):
            value, rule = getattr(part, spec.name), spec.metadata["rule"]
            if value is not None and rule.flags:
                yield rule.flags[-1].split("/")[0], _text(value), "given" if spec.name in plan.given else ""


def _text(value: Any) -> str:  # noqa: ANN401 - of any setting
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
