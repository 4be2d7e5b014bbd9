"""The same pictures through dense layers, with and without batch normalisation.

Now the whole picture at once: 784 numbers, a layer of 300, a layer of 100, ten answers. Batch normalisation stands
behind each layer. For every unit it takes the mean m and the variance v of what the unit says over the batch:

    y = a (x - m) / sqrt(v + 1e-5) + b

with a and b learnt. The next layer then finds its inputs where it expects them, however the layers below have moved,
and learning is quicker. For testing there is no batch, so running means of m and v are kept.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import nn

from charlm.lessons import LessonOptions, Say
from charlm.lessons.drawn import SIDE
from charlm.lessons.images import learn, load_digits

WIDTHS = (SIDE * SIDE, 300, 100)
EPOCHS = 8


def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Learn the digits twice and compare the accuracy, epoch by epoch."""
    digits = load_digits(options)
    say(f"{len(digits.images):,} {digits.name} to learn, {len(digits.test_images):,} to test on.")
    say(f"{' -> '.join(map(str, WIDTHS))} -> 10 units, once plain, once normalised.")
    say("")
    say("        right on the test pictures")
    say("epoch     plain   normalised")
    models = []
    for normalised in (False, True):
        torch.manual_seed(options.seed)  # the same weights to start from
        models.append(dense(normalised))
    courses = [learn(model, digits, 3 if options.quick else EPOCHS) for model in models]
    plain, normed = [], []
    for epoch, ((_, without), (_, with_norm)) in enumerate(zip(*courses, strict=True), start=1):
        plain.append(without)
        normed.append(with_norm)
        say(f"{epoch:5d}  {without:8.2%}     {with_norm:8.2%}")
    say("")
    say("Look at the first line: both began with the same weights, and after one epoch")
    say("the normalised net is ahead. Most of what normalising gives, it gives at once.")
    return {"data": digits.name, "plain": plain, "normalised": normed}


def dense(normalised: bool) -> nn.Sequential:
    """Two dense rectified layers and a head: logits, (B, 10), of pictures, (B, R, C)."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, units in pairwise(WIDTHS):
        layers += [nn.Linear(inputs, units), *([nn.BatchNorm1d(units)] if normalised else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(WIDTHS[-1], 10))


def draw(figure: Any, figures: dict[str, Any]) -> None:  # noqa: ANN401 - a matplotlib figure
    """Accuracy of both by epoch."""
    axes = figure.subplots()
    for name in ("plain", "normalised"):
        axes.plot(range(1, len(figures[name]) + 1), [100 * share for share in figures[name]], marker="o", label=name)
    axes.set(xlabel="epoch", ylabel="% right on the test pictures", title=figures["data"])
    axes.legend()
