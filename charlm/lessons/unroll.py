"""A batch of sequences of different lengths.

The sequences of a batch are stored in one tensor of shape (B, T, I): B
sequences, T time steps, I inputs per step. All sequences in a tensor have the
same length T. A shorter sequence is padded to this length, and its true length
is given separately. The padding must not change the result.

Shapes: B = 4 sequences, T = 2 time steps, I = 3 inputs, H = 5 units, L = 1.
"""

from typing import Any

import numpy as np
import torch

from charlm.lessons import LessonOptions, Say
from charlm.lessons.arrays import format_matrix, format_row
from charlm.lessons.cell import UNITS, X0, X1, two_step_model

LENGTHS = torch.tensor([2, 1, 2, 2])

INTRODUCTION = """\
A layer reads all sequences of a batch together, as one tensor of shape
(B, T, I): B sequences, T time steps, I inputs per step. Shorter sequences are
padded to length T, and their true lengths are given too. For a padded step,
the output must be zero and the hidden state must not change:

  outputs[b, t] = 0                            for t >= lengths[b]
  state[b]      = outputs[b, lengths[b] - 1]   output of the last real step

Here are the sequences of the lesson cell again, with the same weights, as one
tensor of shape {shape} with lengths {lengths}. Each line is one
step: inputs -> outputs. Sequence 1 has one real step and one padded step.
"""
CONCLUSION = """
Look at the second row of h. It is equal to the output of sequence 1 at step 0,
which is the last real step of this sequence. If the layer had also read the
padding, its state would depend on the amount of padding."""


@torch.no_grad()
def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Read four sequences, one of which ends after the first step."""
    torch.manual_seed(options.seed)
    core = two_step_model(UNITS).core  # the weights of the lesson cell
    inputs = torch.from_numpy(np.stack([X0, X1], axis=1))  # (B, T, I)
    outputs, (state,) = core(inputs, lengths=LENGTHS)  # (B, T, H), (L, B, H)

    say(INTRODUCTION.format(shape=tuple(inputs.shape), lengths=LENGTHS.tolist()))
    for b, length in enumerate(LENGTHS.tolist()):
        for t in range(inputs.shape[1]):
            values = f"{format_row(inputs[b, t], 0)}  -> {format_row(outputs[b, t])}"
            say(f"  sequence {b}, step {t}:  {values}{'   padding' if t >= length else ''}")
    say(f"\nThe final hidden state h, of shape {tuple(state.shape)}; one row per sequence:")
    say(format_matrix("h", state[0]))

    padded = torch.arange(inputs.shape[1]) >= LENGTHS[:, None]  # (B, T), bool
    last_outputs = outputs[torch.arange(len(LENGTHS)), LENGTHS - 1]  # (B, H)
    figures = {
        "shapes": {"inputs": list(inputs.shape), "outputs": list(outputs.shape), "state": list(state.shape)},
        "greatest_past_the_end": float(outputs[padded].abs().max()),
        "state_is_last_output": bool(torch.equal(state[0], last_outputs)),
    }
    equal = "yes" if figures["state_is_last_output"] else "no"
    say("")
    say(f"Maximum absolute output at a padded step: {figures['greatest_past_the_end']}")
    say(f"The final state equals the output of the last real step: {equal}")
    say(CONCLUSION)
    return figures
