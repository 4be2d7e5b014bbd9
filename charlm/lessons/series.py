"""Forecasting a wave, with one layer and with three.

The wave is t sin(t) / 3 + 2 sin(5 t). The model reads it in steps of 0.1 and says at each step where it will be at the
next: twenty numbers in, the same twenty moved on by one out. No letters here, but otherwise it is a language model:
what comes next, given what came before. The loss is the mean of the squared misses.

The units are rectified, max(0, x), in place of tanh: a wave may grow beyond 1.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from charlm.lessons import LessonOptions, Say
from charlm.training.network import CoreOptions, Forecaster, RecurrentCore

END, RESOLUTION, STEPS = 30.0, 0.1, 20
UNITS, BATCHES, BATCH = 100, 1500, 50
DEPTHS = {1: "1 layer", 3: "3 layers"}
SHOWN = 12.2
"""Where the window that is printed begins."""


def wave(times: Tensor) -> Tensor:
    """The wave at some times."""
    return times * times.sin() / 3 + 2 * (5 * times).sin()


def windows(starts: Tensor) -> tuple[Tensor, Tensor]:
    """Twenty values from each start, (B, T, 1), and the twenty one step later."""
    values = wave(starts[:, None] + RESOLUTION * torch.arange(STEPS + 1))[..., None]
    return values[:, :-1], values[:, 1:]


def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Train both models on the same windows, and compare them on all of the wave and on one window."""
    batches = 150 if options.quick else BATCHES
    say(f"{UNITS} rectified units a layer, Adam at 1e-3, {batches:,} batches of {BATCH} windows.")
    say("")
    say("batches  layers  mean squared error over the whole wave")
    errors, forecasts = {}, {}
    inputs, targets = windows(torch.tensor([SHOWN]))
    for layers, name in DEPTHS.items():
        torch.manual_seed(options.seed)
        model = Forecaster(RecurrentCore("rnn", 1, UNITS, layers, options=CoreOptions(nonlinearity="relu")), 1)
        for batch, error in train(model, batches):
            errors[name] = error
            say(f"{batch:7,}  {layers:6d}  {error:.4f}")
        forecasts[name] = model(inputs)[0].flatten().tolist()

    times = [SHOWN + RESOLUTION * (step + 1) for step in range(STEPS)]
    say("")
    say(f"One window, from t = {SHOWN}: the wave, and what was forecast a step before.")
    say("     t     wave   1 layer  3 layers")
    for time, true, *guesses in zip(times, targets.flatten().tolist(), *forecasts.values(), strict=True):
        say(f"  {time:4.1f}  {true:7.2f}  {guesses[0]:8.2f}  {guesses[1]:8.2f}")
    say("")
    say("Look at the first line and then down: at its first step a model has seen one")
    say("number, which the wave passes going up and going down. The more it has read, the")
    say("better it knows where it is. Draw it with --plot wave.png.")
    return {"mse": errors, "times": times, "wave": targets.flatten().tolist(), "forecasts": forecasts}


def train(model: Forecaster, batches: int) -> Iterator[tuple[int, float]]:
    """Learn windows from anywhere in the wave; five times yields the batch, and the error over all of it."""
    last_start = END - RESOLUTION * STEPS
    all_inputs, all_targets = windows(torch.arange(0, last_start, RESOLUTION / 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for batch in range(1, batches + 1):
        inputs, targets = windows(torch.rand(BATCH) * last_start)
        loss = F.mse_loss(model(inputs)[0], targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if batch % (batches // 5) == 0:
            yield batch, float(F.mse_loss(model(all_inputs)[0], all_targets).detach())


def draw(figure: Any, figures: dict[str, Any]) -> None:  # noqa: ANN401 - a matplotlib figure
    """The whole wave, and the window with both forecasts."""
    whole, window = figure.subplots(1, 2)
    every = torch.arange(0, END, RESOLUTION / 5)
    whole.plot(every, wave(every), color="0.6")
    for axes in (whole, window):
        axes.plot(figures["times"], figures["wave"], "k.-", label="wave")
        axes.set(xlabel="t")
    for name, values in figures["forecasts"].items():
        window.plot(figures["times"], values, "o", fillstyle="none", label=f"forecast, {name}")
    whole.set(title="t sin(t) / 3 + 2 sin(5 t)")
    window.set(title="a step ahead")
    window.legend()
