"""Output of `charlm classify test`: the quality of a classifier, as tables, JSON or an image.

This module imports NumPy. Import it after the number of threads has been set.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from charlm.cli.figure import new_figure, save_figure
from charlm.cli.options import note, noter
from charlm.cli.tables import print_table
from charlm.engine.classifier_metrics import Quality, measure_quality
from charlm.engine.text_classifier import TextClassifier
from charlm.errors import CorpusError
from charlm.text.labelled import LabelledOptions, classes_text, read_labelled

MAX_MATRIX_CLASSES = 20
"""Maximum number of classes of which the confusion matrix is printed."""

MAX_MISTAKES = 10
"""Number of the most frequent mistakes that are printed instead."""


def show_report(
    classifier: TextClassifier,
    specs: Sequence[str],
    options: LabelledOptions,
    *,
    as_json: bool,
    plot: Path | None,
    quiet: bool,
) -> None:
    """Measure a classifier on labelled texts and print the result.

    Raises:
        CorpusError: If a sample has a class that the classifier does not know.
    """
    figure = None if plot is None else new_figure(plot, "--plot")
    found = read_labelled(specs, options, report=noter(quiet=quiet))
    for name, layout in found.layouts.items():
        note(f"{name}: read as {layout}", quiet=quiet)
    places = {label: index for index, label in enumerate(classifier.labels)}
    samples = [*found.samples, *found.empty]
    for sample in samples:
        if sample.label not in places:
            raise CorpusError(
                f"{sample.source}: line {sample.number:,}: the class {sample.label[:80]!r} is unknown to the "
                f"classifier, which has {classes_text(classifier.labels)}"
            )
    log_probs = classifier.log_probabilities([sample.text for sample in samples])
    quality = measure_quality(log_probs, np.array([places[sample.label] for sample in samples]), classifier.labels)
    if classifier.num_empty:
        note(f"{classifier.num_empty:,} empty text(s), predicted from the shares of the classes", quiet=quiet)
    if as_json:
        click.echo(json.dumps({**quality.to_dict(), "empty": classifier.num_empty}, indent=2))
    else:
        _print(quality)
    if figure is not None and plot is not None:
        _draw(figure, quality, classifier.history)
        save_figure(figure, plot, "--plot")


def _print(quality: Quality) -> None:
    """Print totals, the quality for each class, and the confusion matrix."""
    print_table(
        [
            ("texts", f"{quality.num_texts:,}"),
            ("accuracy", f"{quality.accuracy:.4f}"),
            ("macro F1", f"{quality.macro_f1:.4f}"),
            ("log-loss", f"{quality.log_loss:.4f} nats"),
            ("calibration error", f"{quality.calibration_error:.4f}"),
        ]
    )
    click.echo()
    rows = [
        (label, f"{part.precision:.4f}", f"{part.recall:.4f}", f"{part.f1:.4f}", f"{part.count:,}")
        for label, part in quality.classes.items()
    ]
    _print_columns([("class", "precision", "recall", "F1", "texts"), *rows])
    click.echo()
    if len(quality.classes) <= MAX_MATRIX_CLASSES:
        labels = list(quality.classes)
        counts = [(label, *map(str, row)) for label, row in zip(labels, quality.confusion.tolist(), strict=True)]
        _print_columns([("true \\ predicted", *labels), *counts])
    else:
        _print_columns([("true", "predicted", "texts"), *_mistakes(quality)])


def _mistakes(quality: Quality) -> Iterator[tuple[str, str, str]]:
    """Yield the most frequent pairs of true class and wrong label."""
    labels = list(quality.classes)
    wrong = quality.confusion - np.diag(np.diag(quality.confusion))
    for place in np.argsort(-wrong, axis=None, kind="stable")[:MAX_MISTAKES]:
        true, predicted = divmod(int(place), len(labels))
        if wrong[true, predicted]:
            yield labels[true], labels[predicted], str(wrong[true, predicted])


def _print_columns(rows: Sequence[Sequence[str]]) -> None:
    """Print a table with a header: aligned on a terminal, with tabs elsewhere."""
    if not sys.stdout.isatty():
        print_table(rows)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from charlm.text.printable import escape_unprintable

    table = Table(box=None, pad_edge=False)
    for index, name in enumerate(rows[0]):
        table.add_column(Text(escape_unprintable(name)), justify="right" if index else "left", overflow="fold")
    for row in rows[1:]:
        table.add_row(*(Text(escape_unprintable(cell)) for cell in row))
    Console().print(table)


def _draw(figure: Any, quality: Quality, history: Sequence[dict[str, Any]]) -> None:  # noqa: ANN401 - matplotlib's
    """Draw the confusion matrix, and the accuracies in the course of the training if they are known."""
    axes = figure.subplots(1, 2 if history else 1, squeeze=False)[0]
    labels = list(quality.classes)
    shares = quality.confusion / np.maximum(1, quality.confusion.sum(axis=1, keepdims=True))
    axes[0].imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes[0].set(xlabel="predicted class", ylabel="true class", title=f"accuracy {quality.accuracy:.2%}")
    if len(labels) <= MAX_MATRIX_CLASSES:
        axes[0].set_xticks(range(len(labels)), labels, rotation=45, ha="right")
        axes[0].set_yticks(range(len(labels)), labels)
        for row, column in np.ndindex(*shares.shape):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes[0].text(column, row, str(quality.confusion[row, column]), ha="center", va="center", color=colour)
    if history:
        for name, label in (("train_accuracy", "training"), ("val_accuracy", "validation")):
            points = [(entry["epoch"], entry[name]) for entry in history if entry.get(name) is not None]
            axes[1].plot(*zip(*points, strict=True), marker=".", label=label)
        axes[1].set(xlabel="epoch", ylabel="accuracy", title="training")
        axes[1].legend()
