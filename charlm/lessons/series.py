"""Forecasting a time series with one and with three layers.

The loss is the mean squared error. The units use max(0, x), called ReLU,
instead of tanh, which hardly distinguishes large numbers.

Shapes: B = 50 windows, T = 20 time steps, one input and one output per step.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from charlm.lessons import LessonOptions, Say
from charlm.training.network import CoreOptions, Forecaster, RecurrentCore

END, INTERVAL, STEPS = 30.0, 0.1, 20
UNITS, BATCHES, BATCH_SIZE = 100, 1500, 50
DEPTHS = {1: "1 layer", 3: "3 layers"}
SHOWN = 12.2  # time at which the printed window starts

INTRODUCTION = """\
A model reads {steps} values of the wave w(t) = t sin(t) / 3 + 2 sin(5 t), at
intervals of {interval}, and forecasts the next value at each step. Two models are
trained: one layer and three stacked layers of {units} units each. Both train on
{batches:,} batches of {batch_size} random windows of the wave.

The mean squared error over the whole wave, which has a variance of 18:
batches  layers   error"""
CONCLUSION = """
Look at the first lines of the window, then at the last. At the first step a
model has read one value, which the wave has on the way up and on the way down.
With more values it knows the direction, and the forecasts improve. Then look at
the second table: errors grow if a model reads its own forecasts, as a language
model does when it generates text. To draw a picture of the wave:
  charlm lesson series --plot wave.png"""


def wave(times: Tensor) -> Tensor:
    """Return the value of the wave at each time."""
    return times * times.sin() / 3 + 2 * (5 * times).sin()


def windows(starts: Tensor) -> tuple[Tensor, Tensor]:
    """Return inputs and targets, (B, T, 1) each: the values from each start, and the values one step later."""
    values = wave(starts[:, None] + INTERVAL * torch.arange(STEPS + 1))[..., None]  # (B, T + 1, 1)
    return values[:, :-1], values[:, 1:]


def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Train both models on the same windows, and compare them on the whole wave and on one window."""
    batches = 150 if options.quick else BATCHES
    say(INTRODUCTION.format(steps=STEPS, interval=INTERVAL, units=UNITS, batches=batches, batch_size=BATCH_SIZE))
    errors, forecasts, own = {}, {}, {}
    inputs, targets = windows(torch.tensor([SHOWN]))  # (1, T, 1) each
    for layers, name in DEPTHS.items():
        torch.manual_seed(options.seed)
        model = Forecaster(RecurrentCore("rnn", 1, UNITS, layers, options=CoreOptions(nonlinearity="relu")), 1)
        for batch, error in train(say, model, batches):
            errors[name] = error
            say(f"{batch:7,}  {layers:6d}  {error:6.4f}")
        forecasts[name] = model(inputs)[0].flatten().tolist()
        own[name] = continue_alone(model, targets)
    times = [SHOWN + INTERVAL * (step + 1) for step in range(STEPS)]
    true = targets.flatten().tolist()
    say(f"\nThe window that starts at t = {SHOWN}, and the forecasts from the values before:")
    print_forecasts(say, times, true, forecasts)
    later = torch.tensor(times) + INTERVAL * STEPS
    say(f"\nThe {STEPS} values after it. Each forecast is the next input of the model:")
    print_forecasts(say, later.tolist(), wave(later).tolist(), own)
    say(CONCLUSION)
    return {"mse": errors, "times": times, "wave": true, "forecasts": forecasts, "own": own}


@torch.no_grad()
def continue_alone(model: Forecaster, window: Tensor) -> list[float]:
    """Return T values after a window, (1, T, 1), in which each forecast is appended to the window."""
    for _ in range(STEPS):
        window = torch.cat([window[:, 1:], model(window)[0][:, -1:]], dim=1)
    return window.flatten().tolist()


def print_forecasts(say: Say, times: list[float], values: list[float], forecasts: dict[str, list[float]]) -> None:
    """Print a table of the wave and the forecasts of both models."""
    say("     t     wave   1 layer  3 layers")
    for time, true, *guesses in zip(times, values, *forecasts.values(), strict=True):
        say(f"  {time:4.1f}  {true:7.2f}  {guesses[0]:8.2f}  {guesses[1]:8.2f}")


def train(say: Say, model: Forecaster, batches: int) -> Iterator[tuple[int, float]]:
    """Train on random windows; yield the batch number and the error over the whole wave, five times in all."""
    last_start = END - INTERVAL * STEPS
    all_inputs, all_targets = windows(torch.arange(0, last_start, INTERVAL / 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for batch in range(1, batches + 1):
        inputs, targets = windows(torch.rand(BATCH_SIZE) * last_start)  # (B, T, 1) each
        loss = F.mse_loss(model(inputs)[0], targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        say.status(f"batch {batch:,} of {batches:,}")
        if batch % (batches // 5) == 0:
            yield batch, float(F.mse_loss(model(all_inputs)[0], all_targets).detach())


def draw(figure: Any, figures: dict[str, Any]) -> None:  # noqa: ANN401 - a matplotlib figure
    """Draw the whole wave, and the window with both forecasts."""
    whole, window = figure.subplots(1, 2)
    times = torch.arange(0, END, INTERVAL / 5)
    whole.plot(times, wave(times), color="0.6")
    for axes in (whole, window):
        axes.plot(figures["times"], figures["wave"], "k.-", label="wave")
        axes.set(xlabel="t")
    for name, values in figures["forecasts"].items():
        window.plot(figures["times"], values, "o", fillstyle="none", label=f"forecast, {name}")
    whole.set(title="t sin(t) / 3 + 2 sin(5 t)")
    window.set(title="forecasts one step ahead")
    window.legend()
