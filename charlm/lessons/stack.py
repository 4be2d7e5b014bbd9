"""Stacked layers, a state that is carried on, and two directions.

The outputs of a layer are again a sequence, so a second layer can read them.
Such layers are called stacked. All that they keep from earlier steps is their
state. So a sequence can be cut anywhere: read the first part, keep the state,
and read the rest from this state. Training on long texts and generating text
token by token both depend on this.

A layer can also read a sequence from its end to its beginning. A bidirectional
layer does both, so each output depends on the steps before and after it. For
padded sequences the backward direction starts at the last real step.

Shapes: B = 3 sequences, T = 5 time steps, I = 3 inputs, H = 5 units, L = 3.
"""

from typing import Any

import torch
from torch import Tensor

from charlm.lessons import LessonOptions, Say
from charlm.lessons.arrays import format_matrix, format_row, max_difference
from charlm.training.network import CoreOptions, RecurrentCore

UNITS, LAYERS = 5, 3
LENGTHS = torch.tensor([2, 3, 1])

INTRODUCTION = """\
Recurrent layers can be stacked: each layer reads the outputs of the layer below
it. From step to step, the layers keep only their state. So a sequence can be
read in several parts, if the state is carried on from part to part.

The inputs are the numbers 0 to 44, as three sequences of five steps with three
inputs per step. The first sequence X, one row per step:
"""
BOTH_DIRECTIONS = """
A bidirectional layer also reads each sequence backward. Here a layer of 2 units
per direction reads the first three steps of each sequence, divided by 45. The
true lengths are {lengths}. Each line shows the outputs at one step; 'start' is
the step at which the backward direction starts.
"""
CONCLUSION = """
Look at the differences between one pass and two parts. They are zero or
rounding errors if the state is carried on, and {without_state:.2f} if it is not. Then look
at the word 'start': the backward direction never starts in the padding."""


@torch.no_grad()
def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Read the numbers 0 to 44, as three sequences of five steps with three inputs each."""
    torch.manual_seed(options.seed)
    inputs = torch.arange(45.0).reshape(3, 5, 3)  # (B, T, I)
    say(INTRODUCTION)
    say(format_matrix("X", inputs[0], 0))
    figures = read_in_two_parts(say, inputs) | read_both_ways(say, inputs)
    say(CONCLUSION.format(**figures))
    return figures


def read_in_two_parts(say: Say, inputs: Tensor) -> dict[str, Any]:
    """Compare reading a sequence in one pass with reading it in two parts."""
    core = RecurrentCore("lstm", 3, UNITS, num_layers=LAYERS)
    zero = core.zero_state(len(inputs))  # (h, c), each (L, B, H)
    whole, end = core(inputs, zero)  # (B, T, H), (h, c)
    first, middle = core(inputs[:, :2], zero)  # the first two steps
    second, end_of_parts = core(inputs[:, 2:], middle)  # the other three, from the state in the middle
    without_state, _ = core(inputs[:, 2:], zero)  # the other three, from the zero state
    figures = {
        "difference": max_difference(whole, torch.cat([first, second], dim=1)),
        "state_difference": max(max_difference(a, b) for a, b in zip(end, end_of_parts, strict=True)),
        "without_state": max_difference(whole[:, 2:], without_state),
    }
    say("")
    say(f"{LAYERS} stacked LSTM layers of {UNITS} units read all sequences. Their outputs have the")
    say(f"shape {tuple(whole.shape)}: sequences, steps, units. Their state is (h, c), each of shape")
    say(f"{tuple(end[0].shape)}: layers, sequences, units. The outputs Y for the first sequence:")
    say(format_matrix("Y", whole[0]))
    say("")
    say("The same layers read the sequences in one pass, and in two parts of 2 and 3")
    say("steps. Maximum difference between the two ways:")
    say(f"  outputs, state carried on to the second part    {figures['difference']:.1e}")
    say(f"  final states, state carried on                  {figures['state_difference']:.1e}")
    say(f"  outputs, second part read from the zero state   {figures['without_state']:.1e}")
    return figures


def read_both_ways(say: Say, inputs: Tensor) -> dict[str, Any]:
    """Read in both directions, and compare the backward one with a plain layer that reads reversed sequences."""
    core = RecurrentCore("rnn", 3, 2, options=CoreOptions(bidirectional=True))
    inputs = inputs[:, :3] / 45  # numbers from 0 to 1, because tanh is almost 1 for all large numbers
    outputs, (state,) = core(inputs, lengths=LENGTHS)  # (B, T, 2 * H), (2, B, H)
    backward = RecurrentCore("rnn", 3, 2)
    weights = {name.removesuffix("_reverse"): array for name, array in core.state_dict().items() if "reverse" in name}
    backward.load_state_dict(weights)

    say(BOTH_DIRECTIONS.format(lengths=LENGTHS.tolist()))
    differences = []
    for b, length in enumerate(LENGTHS.tolist()):
        expected, _ = backward(inputs[b : b + 1, :length].flip(1))  # from the last real step to the first
        differences.append(max_difference(outputs[b, :length, 2:], expected[0].flip(0)))
        for t, output in enumerate(outputs[b]):
            mark = "  start" if t == length - 1 else "" if t < length else "  padding"
            row = f"forward {format_row(output[:2])}   backward {format_row(output[2:])}"
            say(f"  sequence {b}, step {t}:  {row}{mark}")
    say("A plain layer with the backward weights read each sequence in reverse order.")
    say(f"Maximum difference from the backward outputs: {max(differences):.1e}")
    first_outputs = outputs[:, 0, 2:]  # (B, H), where the backward direction ends
    return {
        "backward_difference": max(differences),
        "backward_ends_at_first": bool(torch.equal(state[1], first_outputs)),
    }
