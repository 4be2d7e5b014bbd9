"""Batch normalisation between dense layers.

Here a network of dense layers reads the whole image at once: 784 pixels, a
layer of 300 units, a layer of 100 units, and the logits of ten digits. Batch
normalisation follows each of the two layers, and training is faster.

Shapes: B images in a batch, R = 28 rows, C = 28 columns.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import nn

from charlm.lessons import LessonOptions, Say
from charlm.lessons.digit_data import load_digits
from charlm.lessons.digit_training import train_epochs
from charlm.lessons.drawn_digits import SIDE

WIDTHS = (SIDE * SIDE, 300, 100)
"""Number of inputs, then units of each layer."""

EPOCHS, QUICK_EPOCHS = 8, 3

INTRODUCTION = """\
Two networks of dense layers, {layers} -> 10 units, classify images of
digits. One has batch normalisation after each of its two hidden layers, the
other has not. Both start with the same weights.

For each unit, let m and v be the mean and the variance of its values x in a
batch of images. Batch normalisation computes

  y = a (x - m) / sqrt(v + 1e-5) + b

with weights a and b. So the inputs of the next layer keep the same mean and
variance while the weights below change. At test time, running averages of m and
v replace those of the batch.

The data are {training:,} images of {name} for training and {test:,} for testing.
The table shows the share of the test images that are classified correctly after
each epoch, which is one pass over the training images:

epoch   without normalisation   with normalisation"""
CONCLUSION = """
Look at the number of epochs that each network needs for the same accuracy. Both
started with the same weights, but batch normalisation makes training faster."""


def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Train both networks side by side, and print their accuracy after each epoch."""
    digits = load_digits(options)
    counts = {"training": len(digits.images), "test": len(digits.test_images)}
    say(INTRODUCTION.format(layers=" -> ".join(map(str, WIDTHS)), name=digits.name, **counts))
    models = []
    for normalised in (False, True):
        torch.manual_seed(options.seed)  # both start with the same weights
        models.append(dense_network(normalised))
    epochs = QUICK_EPOCHS if options.quick else EPOCHS
    trainings = [train_epochs(say, model, digits, epochs) for model in models]
    plain, normed = [], []
    for epoch, ((_, plain_accuracy), (_, normed_accuracy)) in enumerate(zip(*trainings, strict=True), start=1):
        plain.append(plain_accuracy)
        normed.append(normed_accuracy)
        say(f"{epoch:5d}   {plain_accuracy:21.2%}   {normed_accuracy:18.2%}")
    say(CONCLUSION)
    return {"data": digits.name, "plain": plain, "normalised": normed}


def dense_network(normalised: bool) -> nn.Sequential:
    """Return two dense layers with ReLU, and a linear layer: from images, (B, R, C), to logits, (B, 10)."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, units in pairwise(WIDTHS):
        layers += [nn.Linear(inputs, units), *([nn.BatchNorm1d(units)] if normalised else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(WIDTHS[-1], 10))


def draw(figure: Any, figures: dict[str, Any]) -> None:  # noqa: ANN401 - a matplotlib figure
    """Draw the test accuracy of both networks by epoch."""
    axes = figure.subplots()
    for name in ("plain", "normalised"):
        axes.plot(range(1, len(figures[name]) + 1), [100 * share for share in figures[name]], marker="o", label=name)
    axes.set(xlabel="epoch", ylabel="test accuracy (%)", title=figures["data"])
    axes.legend()
