"""Display of the training of a classifier: plan, progress and summary."""

import textwrap
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import TYPE_CHECKING

import click

from charlm.cli.options import note
from charlm.cli.plan_view import value_text
from charlm.cli.progress import FIRST_LINE_SECONDS, SECONDS_BETWEEN_LINES, clock_text
from charlm.cli.signals import StopSignals
from charlm.cli.status import StatusLine, bar_text
from charlm.cli.tables import print_table
from charlm.errors import RunError

if TYPE_CHECKING:
    from charlm.training.classifier_setup import ClassifierRequest, ClassifierTraining
    from charlm.training.classifier_trainer import ClassifierProgress


def run_training(request: "ClassifierRequest", resume: str | None, *, plan_only: bool, quiet: bool) -> int:
    """Train a classifier, or print the plan. Return the number of the signal that ended the training, or 0."""
    with StatusLine(quiet=quiet) as status, _prepare(request, resume, status, plan_only=plan_only) as training:
        status.clear()
        for message in training.notes:
            note(message, quiet=quiet)
        if plan_only:
            print_table([*_facts(training), ("", "", ""), *_settings(training)])
            return 0
        if not quiet:
            click.echo(textwrap.fill(_plan_text(training), status.columns), err=True)
        status.show("counting words")
        view = _ProgressView(status, quiet=quiet)
        with StopSignals() as stop:
            end = training.train(view, lambda: stop.number != 0)
        status.clear()
        if not end.step:
            raise RunError(
                f"stopped before the first update; continue with resume {training.run.name}", fields=["resume"]
            )
        if not quiet:
            print_table(list(_summary(training, end)), err=True)
        click.echo(training.run.model)
        return stop.number


def _prepare(
    request: "ClassifierRequest", resume: str | None, status: StatusLine, *, plan_only: bool
) -> "AbstractContextManager[ClassifierTraining]":
    """Prepare a new training, or a resumed one."""
    from charlm.training.classifier_setup import prepare_classifier

    if resume is None:
        return prepare_classifier(request, status.show, dry_run=plan_only)
    if request.validation or request.glove or request.pretrained or plan_only:
        raise click.UsageError("--validation, --glove, --from and --plan are for a new run: omit them")
    from charlm.training.classifier_resumption import prepare_resumed_classifier

    return prepare_resumed_classifier(request, resume or request.name or "", status.show)


def _plan_text(training: "ClassifierTraining") -> str:
    """Return the plan in one line."""
    plan = training.plan
    model, direction = plan.model, "bidirectional " if plan.model.bidirectional else ""
    counts = ", with counts" if plan.train.counts else ""
    if plan.train.freeze_encoder:
        return (
            f"Plan: output layer on the frozen encoder, {model.cell} {model.num_layers} x {model.hidden_size}{counts}"
        )
    return (
        f"Plan: {direction}{model.cell} {model.num_layers} x {model.hidden_size}, {plan.steps:,} updates of "
        f"{plan.train.batch_size} texts (about {plan.epochs:.3g} epochs), learning rate "
        f"{plan.train.learning_rate:.2g}{counts}"
    )


def _facts(training: "ClassifierTraining") -> Iterator[tuple[str, str, str]]:
    split, plan = training.split, training.plan
    yield "classes", f"{len(split.labels):,}", ", ".join(split.labels[:10])
    yield "training samples", f"{len(split.train):,}", ""
    yield "validation samples", f"{len(split.validation):,}", ""
    yield "vocabulary", f"{plan.model.vocab_size:,} {training.content.tokenizer.kind}s", ""
    yield "updates", f"{plan.steps:,}", f"about {plan.epochs:.3g} epochs"


def _settings(training: "ClassifierTraining") -> Iterator[tuple[str, str, str]]:
    plan = training.plan
    for config in (plan.model, plan.train):
        for spec in fields(config):
            value, rule = getattr(config, spec.name), spec.metadata["rule"]
            if value is not None and rule.flags:
                yield rule.flags[-1].split("/")[0], value_text(value), "given" if spec.name in plan.given else ""


def _summary(training: "ClassifierTraining", end: "ClassifierProgress") -> Iterator[tuple[str, str]]:
    """Yield the rows of the summary at the end."""
    state = "trained" if end.step >= end.steps else "stopped"
    updates = "" if training.plan.train.freeze_encoder else f", {end.step:,} updates, {end.epoch:.3g} epochs"
    yield state, f"{clock_text(end.seconds)}{updates}"
    alone = [f"network alone {end.network_accuracy:.2%}"] if end.network_accuracy is not None else []
    alone += [f"counts alone {end.counts_accuracy:.2%}"] if end.counts_accuracy is not None else []
    split = training.split
    measured = f"{len(split.validation):,} samples" if not training.plan.train.freeze_encoder else "cross-validation"
    if end.val_accuracy is not None and end.val_nats is not None:
        yield (
            "validation",
            f"accuracy {end.val_accuracy:.2%}, log-loss {end.val_nats:.4f} nats ({'; '.join(alone)}; {measured})",
        )
    yield "saved in", str(training.run.path)
    yield "next", f"charlm classify predict -m {training.run.name}"


class _ProgressView:
    """Display of the progress on stderr: a bar on a terminal, occasional lines elsewhere."""

    def __init__(self, status: StatusLine, *, quiet: bool) -> None:
        self._status = status
        self._quiet = quiet
        self._next_seconds = FIRST_LINE_SECONDS
        self._first: ClassifierProgress | None = None
        self._val_accuracy: float | None = None

    def __call__(self, progress: "ClassifierProgress") -> None:
        """Show the progress if a display is due."""
        self._first = self._first or progress
        if progress.val_accuracy is not None:
            self._val_accuracy = progress.val_accuracy
        if self._quiet:
            return
        if self._status.is_shown:
            if self._status.is_due():
                fraction = progress.step / progress.steps
                self._status.show(bar_text(fraction, self._parts(progress), self._status.columns))
        elif progress.seconds >= self._next_seconds:
            self._next_seconds = progress.seconds + SECONDS_BETWEEN_LINES
            click.echo(f"{progress.step / progress.steps:4.0%}  {', '.join(self._parts(progress))}", err=True)

    def _parts(self, progress: "ClassifierProgress") -> dict[str, int]:
        """Return what there is to say, with the rank at which a bar leaves it out."""
        first = self._first or progress
        done = progress.step - first.step
        left = (progress.seconds - first.seconds) / done * (progress.steps - progress.step) if done else None
        parts = {f"{'?' if left is None else clock_text(left)} left": 0}
        if progress.train_nats == progress.train_nats:
            parts |= {f"{progress.train_nats:.3f} nats": 2, f"training accuracy {progress.train_accuracy:.1%}": 3}
        if self._val_accuracy is not None:
            parts[f"validation {self._val_accuracy:.1%}"] = 1
        return {**parts, f"epoch {progress.epoch:.1f}": 4}
