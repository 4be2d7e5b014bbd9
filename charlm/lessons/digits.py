"""Reading a picture row by row.

A picture of 28 x 28 is a sequence of 28 steps with 28 real numbers each. A recurrent layer of 150 units reads it from
top to bottom, as one would read through a slit, and only at the end a head of ten outputs says what it was. So all
that the answer rests on is the last state: the layer must carry down what it saw above.
"""

import time
from typing import Any

import torch

from charlm.lessons import LessonOptions, Say
from charlm.lessons.drawn import SIDE
from charlm.lessons.images import learn, load_digits, predict, show_pictures
from charlm.training.network import Classifier, RecurrentCore

UNITS = 150
EPOCHS = 8


def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Learn to read digits, and show some that are misread."""
    torch.manual_seed(options.seed)
    digits = load_digits(options)
    model = Classifier(RecurrentCore(options.cell, SIDE, UNITS), 10)

    say(f"{len(digits.images):,} {digits.name} to learn, {len(digits.test_images):,} to test on. Three of them:")
    show_pictures(say, digits.test_images[:3])
    say(f"{UNITS} {options.cell} units read them row by row: {SIDE} steps of {SIDE} numbers.")
    say("")
    say("epoch  seconds  loss (nats)  right on the test pictures")
    began, losses, accuracies = time.monotonic(), [], []
    for epoch, (loss, accuracy) in enumerate(learn(model, digits, 4 if options.quick else EPOCHS), start=1):
        losses.append(loss)
        accuracies.append(accuracy)
        say(f"{epoch:5d}  {time.monotonic() - began:7.1f}  {loss:11.4f}  {accuracy:8.2%}")

    predicted = predict(model, digits.test_images)
    wrong = (predicted != digits.test_labels).nonzero()[:3, 0]
    say("")
    if len(wrong):
        pairs = [f"{digits.test_labels[i]} read as {predicted[i]}" for i in wrong]
        say(f"Misread: {', '.join(pairs)}:")
        show_pictures(say, digits.test_images[wrong])
    say("Look at the misread ones: would you have known? And try --cell rnn: a plain")
    say("layer learns it too, 28 steps are not far, but more slowly and not as well.")
    return {"data": digits.name, "cell": options.cell, "loss_nats": losses, "accuracy": accuracies}


def draw(figure: Any, figures: dict[str, Any]) -> None:  # noqa: ANN401 - a matplotlib figure
    """Accuracy by epoch."""
    axes = figure.subplots()
    epochs = range(1, len(figures["accuracy"]) + 1)
    axes.plot(epochs, [100 * share for share in figures["accuracy"]], marker="o", label=figures["cell"])
    axes.set(xlabel="epoch", ylabel="% right on the test pictures", title=f"{figures['data']}, read row by row")
    axes.legend()
