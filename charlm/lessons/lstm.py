"""The gates of an LSTM, and why they help with long distances.

Shapes: B = 1 sequence, T = 4 time steps, I = 2 inputs, H = 3 units.
"""

from typing import Any

import torch

from charlm.lessons import LessonOptions, Say
from charlm.lessons.arrays import format_row, max_difference
from charlm.training.network import RecurrentCore

UNITS = 3
WIDE = 50
DISTANCES = (1, 10, 25, 50, 100)

GATES = """\
An LSTM has a hidden state h, its output, and a cell state c. Three gates,
numbers between 0 and 1, control how c changes. At each step it computes

  i = sigmoid(x Wi + h Ui + bi)   input gate: how much of g is added to c
  f = sigmoid(x Wf + h Uf + bf)   forget gate: how much of c is kept
  o = sigmoid(x Wo + h Uo + bo)   output gate: how much of c is shown in h
  g = tanh(x Wg + h Ug + bg)      candidate: the new content
  c = f * c + i * g
  h = o * tanh(c)

from the input x and the states h and c of the step before. Here are four steps
of an LSTM with {units} units, computed from these equations. 'Difference' is the
maximum difference from PyTorch's LSTM with the same weights.
"""
GRADIENTS = """
Training sends a gradient backward through the steps. In a plain RNN each step
multiplies it by a matrix and by the slope of tanh, so it shrinks quickly. In an
LSTM the direct way through c multiplies it only by f. The bias bf sets f before
training: sigmoid(0) = 0.50, sigmoid(1) = 0.73, sigmoid(2) = 0.88.

A layer learns from an earlier input only if its output has a gradient with
respect to this input. The table shows the norm of this gradient, for inputs
1 to 100 steps before the output, in untrained layers of {units} units. The LSTM
has three different biases of the forget gate.
"""
CONCLUSION = """
Look at the last line. For the plain RNN and for the LSTM with bias 0, the
gradient over 100 steps has vanished, so these layers cannot learn from an input
that far back. The larger the bias, the more of the cell state is kept and the
larger is the gradient. charlm starts with bias 1."""


def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Compute four steps by hand, then measure gradients over up to a hundred steps."""
    torch.manual_seed(options.seed)
    difference = steps_by_hand(say)
    say(GRADIENTS.format(units=WIDE))
    columns = {"rnn": gradient_norms("rnn")} | {f"lstm {bias}": gradient_norms("lstm", bias) for bias in (0, 1, 2)}
    say("  steps before   plain RNN   LSTM, bias 0   LSTM, bias 1   LSTM, bias 2")
    for distance, rnn, *lstms in zip(DISTANCES, *columns.values(), strict=True):
        say(f"  {distance:12d}   {rnn:9.0e}   {lstms[0]:12.0e}   {lstms[1]:12.0e}   {lstms[2]:12.0e}")
    say(CONCLUSION)
    return {"difference": difference, "distances": list(DISTANCES), "gradients": columns}


@torch.no_grad()
def steps_by_hand(say: Say) -> float:
    """Compute four steps of an LSTM from its equations, and return the maximum difference from PyTorch's."""
    core = RecurrentCore("lstm", 2, UNITS)
    w = core.layers[0].state_dict()
    bias = w["bias_ih_l0"] + w["bias_hh_l0"]  # (4 * H,)
    inputs = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0]]])  # (B, T, I)
    h, c = torch.zeros(UNITS), torch.zeros(UNITS)
    differences: list[float] = []
    say(GATES.format(units=UNITS))
    for t, x in enumerate(inputs[0]):
        sums = w["weight_ih_l0"] @ x + w["weight_hh_l0"] @ h + bias  # (4 * H,), in PyTorch's order i f g o
        i, f, g, o = sums.view(4, UNITS)
        i, f, o, g = i.sigmoid(), f.sigmoid(), o.sigmoid(), g.tanh()
        c = f * c + i * g  # (H,)
        h = o * c.tanh()  # (H,)
        _, (torch_h, torch_c) = core(inputs[:, : t + 1])  # (L, B, H) each
        differences += [max_difference(h, torch_h[0, 0]), max_difference(c, torch_c[0, 0])]
        say(f"  step {t}, x = {format_row(x, 0)}; difference {max(differences[-2:]):.0e}")
        say(f"    i {format_row(i)}   f {format_row(f)}   o {format_row(o)}")
        say(f"    g {format_row(g)}   c {format_row(c)}   h {format_row(h)}")
    return max(differences)


def gradient_norms(cell: str, forget_bias: float = 0.0) -> list[float]:
    """Return the norm of the gradient of the last output with respect to the input, by distance.

    The gradient is that of the sum of the output's components. The norm is a mean over 20 sequences of noise.
    """
    core = RecurrentCore(cell, 8, WIDE).double()
    if cell == "lstm":  # charlm sets the forget gate's part of this bias to 1
        core.layers[0].state_dict()["bias_ih_l0"][WIDE : 2 * WIDE] = forget_bias
    inputs = torch.randn(20, DISTANCES[-1] + 1, 8, dtype=torch.float64, requires_grad=True)  # (B, T, I)
    outputs, _ = core(inputs)  # (B, T, H)
    (gradient,) = torch.autograd.grad(outputs[:, -1].sum(), inputs)  # (B, T, I)
    return [float(gradient[:, -1 - distance].norm(dim=-1).mean()) for distance in DISTANCES]
