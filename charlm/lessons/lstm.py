"""The gates of an LSTM by hand, and why they remember.

An LSTM keeps a memory c beside its output h. Three gates, numbers between 0 and 1, say how much of the new candidate
g is written, how much of the memory is kept, and how much of it is shown:

    i = sigmoid(x Wi + h Ui + bi)     input gate        g = tanh(x Wg + h Ug + bg)   candidate
    f = sigmoid(x Wf + h Uf + bf)     forget gate       c = f * c + i * g            memory
    o = sigmoid(x Wo + h Uo + bo)     output gate       h = o * tanh(c)              output

A gradient that goes back a step through c is multiplied by f, and by nothing else. In a plain layer it goes through
tanh and a matrix each time, and after a hundred steps nothing is left of it. In an LSTM its bias decides where f
starts: sigmoid(0) = 0.50 halves the memory at every step, sigmoid(1) = 0.73 is kinder, sigmoid(2) = 0.88 kinder still,
and learning moves it from there.
"""

from typing import Any

import torch
from torch import Tensor

from charlm.lessons import LessonOptions, Say
from charlm.lessons.show import greatest_difference
from charlm.training.network import RecurrentCore

UNITS = 3
WIDE = 50
DISTANCES = (1, 10, 25, 50, 100)


def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Take four steps by hand, then measure gradients over up to a hundred."""
    torch.manual_seed(options.seed)
    difference = by_hand(say)
    say("")
    say(f"How much a fresh layer of {WIDE} units depends on an input of so many steps ago, as")
    say("the norm of the gradient:")
    say("")
    say("  steps ago       rnn    lstm, forget bias 0          1          2")
    columns = {"rnn": gradients("rnn")} | {f"lstm {bias}": gradients("lstm", bias) for bias in (0, 1, 2)}
    for distance, rnn, *lstms in zip(DISTANCES, *columns.values(), strict=True):
        say(f"  {distance:9d}   {rnn:7.0e}    {lstms[0]:19.0e}    {lstms[1]:7.0e}    {lstms[2]:7.0e}")
    say("")
    say("Look at the last line: the rnn hears nothing of a hundred steps ago, and what")
    say("has no gradient cannot be learnt. The LSTM's forget gate decides. charlm starts")
    say("its bias at 1: near enough to remembering for learning to find the rest.")
    return {"difference": difference, "distances": list(DISTANCES), "gradients": columns}


@torch.no_grad()
def by_hand(say: Say) -> float:
    """Take four steps of one LSTM by its equations, and compare with the library's after each."""
    core = RecurrentCore("lstm", 2, UNITS)
    w = core.layers[0].state_dict()
    bias = w["bias_ih_l0"] + w["bias_hh_l0"]
    inputs = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0]]])  # (B=1, T=4, inputs=2)
    h, c = torch.zeros(UNITS), torch.zeros(UNITS)
    differences: list[float] = []
    say(f"An LSTM of {UNITS} units by its equations, beside the library's:")
    for t, x in enumerate(inputs[0]):
        sums = w["weight_ih_l0"] @ x + w["weight_hh_l0"] @ h + bias  # (4 * H,), in PyTorch's order i f g o
        i, f, g, o = sums.view(4, UNITS)
        i, f, o, g = i.sigmoid(), f.sigmoid(), o.sigmoid(), g.tanh()
        c = f * c + i * g
        h = o * c.tanh()
        _, (library_h, library_c) = core(inputs[:, : t + 1])
        differences += [greatest_difference(h, library_h[0, 0]), greatest_difference(c, library_c[0, 0])]
        say(f"  step {t}, x = {x[0]:.0f} {x[1]:.0f}, differs by {max(differences[-2:]):.0e}")
        say(f"    i {_row(i)}   f {_row(f)}   o {_row(o)}")
        say(f"    g {_row(g)}   c {_row(c)}   h {_row(h)}")
    return max(differences)


def gradients(cell: str, forget_bias: float = 0.0) -> list[float]:
    """The norm of the last output's gradient by the input so many steps ago, a mean over 20 sequences of noise."""
    core = RecurrentCore(cell, 8, WIDE).double()
    if cell == "lstm":  # charlm's start is 1, in the first of PyTorch's two biases
        core.layers[0].state_dict()["bias_ih_l0"][WIDE : 2 * WIDE] = forget_bias
    inputs = torch.randn(20, DISTANCES[-1] + 1, 8, dtype=torch.float64, requires_grad=True)
    outputs, _ = core(inputs)
    (slopes,) = torch.autograd.grad(outputs[:, -1].sum(), inputs)
    return [float(slopes[:, -1 - distance].norm(dim=-1).mean()) for distance in DISTANCES]


def _row(values: Tensor) -> str:
    return " ".join(f"{value:6.3f}" for value in values)
