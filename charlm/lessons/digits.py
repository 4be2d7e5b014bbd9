"""Classification of images of digits, row by row.

An image of 28 x 28 pixels can be read as a sequence: 28 time steps with 28
inputs each. A recurrent layer of 150 units reads the rows from top to bottom.
A linear layer then computes the logits of the ten digits from the state after
the last row. So this state must contain all that is needed from the rows above.

The loss is the cross-entropy of the true digit. The accuracy is the share of
the images whose most probable digit is the true one.

Shapes: B images in a batch, T = 28 time steps, I = 28 inputs, H = 150 units.
"""

import time
from typing import Any

import torch

from charlm.lessons import LessonOptions, Say
from charlm.lessons.digit_data import load_digits, print_images
from charlm.lessons.digit_training import predict, train_epochs
from charlm.lessons.drawn_digits import SIDE
from charlm.training.network import Classifier, RecurrentCore

UNITS = 150
EPOCHS, QUICK_EPOCHS = 8, 4

INTRODUCTION = """\
The data are {training:,} images of {name} for training and {test:,} for testing.
An image has {side} x {side} pixels. A layer of {units} {cell} units reads it as a sequence
of {side} rows with {side} numbers each. A linear layer then classifies it from the
last state.

Three test images:
"""
TABLE = """
Each line is one epoch, which is one pass over the training images: the training
loss, and the share of the test images that are classified correctly.

epoch  seconds  loss (nats)  test accuracy"""
CONCLUSION = """
Look at the misclassified images: some of them are difficult for people too.
With a plain RNN the accuracy rises more slowly, because gradients over 28 steps
have already become small (lesson lstm). To see this:
  charlm lesson digits --cell rnn"""


def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Train a classifier, and print some images that it misclassifies."""
    torch.manual_seed(options.seed)
    digits = load_digits(options)
    model = Classifier(RecurrentCore(options.cell, SIDE, UNITS), 10)
    counts = {"training": len(digits.images), "test": len(digits.test_images)}

    say(INTRODUCTION.format(name=digits.name, side=SIDE, cell=options.cell.upper(), units=UNITS, **counts))
    print_images(say, digits.test_images[:3])
    say(TABLE)
    start, losses, accuracies = time.monotonic(), [], []
    epochs = QUICK_EPOCHS if options.quick else EPOCHS
    for epoch, (loss, accuracy) in enumerate(train_epochs(say, model, digits, epochs), start=1):
        losses.append(loss)
        accuracies.append(accuracy)
        say(f"{epoch:5d}  {time.monotonic() - start:7.1f}  {loss:11.4f}  {accuracy:13.2%}")

    predicted = predict(model, digits.test_images)  # (N,)
    wrong = (predicted != digits.test_labels).nonzero()[:3, 0]  # indices of up to three images
    if len(wrong):
        pairs = [f"{digits.test_labels[i]} as {predicted[i]}" for i in wrong]
        say(f"\nTest images that are misclassified: {', '.join(pairs)}\n")
        print_images(say, digits.test_images[wrong])
    say(CONCLUSION)
    return {"data": digits.name, "cell": options.cell, "loss_nats": losses, "accuracy": accuracies}


def draw(figure: Any, figures: dict[str, Any]) -> None:  # noqa: ANN401 - a matplotlib figure
    """Draw the test accuracy by epoch."""
    axes = figure.subplots()
    epochs = range(1, len(figures["accuracy"]) + 1)
    axes.plot(epochs, [100 * share for share in figures["accuracy"]], marker="o", label=figures["cell"])
    axes.set(xlabel="epoch", ylabel="test accuracy (%)", title=f"{figures['data']}, read row by row")
    axes.legend()
