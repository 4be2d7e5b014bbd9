"""Layers on layers, a state carried from half to half, and two directions.

A layer's outputs are a sequence again, so another layer can read them. All that a stack has to remember is its state,
one row a layer, and so a sequence may be cut anywhere: read the first part, keep the state, read the rest. Training
on long texts and writing letter by letter both live on that.

A stack may also read backward, if the whole sequence is there: then every output knows what came before and what comes
after. With sequences of different lengths, backward begins at each one's own end, never in the padding.
"""

from typing import Any

import torch

from charlm.lessons import LessonOptions, Say
from charlm.lessons.show import greatest_difference, matrix
from charlm.training.network import CoreOptions, RecurrentCore

UNITS, LAYERS = 5, 3
LENGTHS = torch.tensor([2, 3, 1])


@torch.no_grad()
def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Read the numbers 0 to 44 as three sequences of five steps of three."""
    torch.manual_seed(options.seed)
    inputs = torch.arange(45.0).reshape(3, 5, 3)  # (B=3, T=5, inputs=3)
    say("The numbers 0 to 44 as three sequences of five steps of three; the first:")
    say("\n".join(matrix("X", inputs[0], 0)))
    figures = carried(say, inputs) | both_ways(say, inputs)
    say("")
    say("Look at what the state is worth: nothing is lost by cutting where it is carried,")
    say(f"and {figures['without_state']:.2f} where it is not. Then at 'begins here': never in the padding.")
    return figures


def carried(say: Say, inputs: torch.Tensor) -> dict[str, Any]:
    """Read all at once, and in two parts with the state carried over."""
    core = RecurrentCore("lstm", 3, UNITS, num_layers=LAYERS)
    zero = core.zero_state(len(inputs))
    whole, end = core(inputs, zero)
    first, middle = core(inputs[:, :2], zero)
    second, end_of_parts = core(inputs[:, 2:], middle)
    difference = greatest_difference(whole, torch.cat([first, second], dim=1))
    state_difference = max(greatest_difference(a, b) for a, b in zip(end, end_of_parts, strict=True))
    forgotten = greatest_difference(whole[:, 2:], core(inputs[:, 2:], zero)[0])

    say(f"{LAYERS} lstm layers of {UNITS} units make {tuple(whole.shape)} of {tuple(inputs.shape)}. Their state is")
    say(f"(h, c), each {tuple(end[0].shape)}: layers, sequences, units; zeros before the first step.")
    say("Their outputs for the first sequence:")
    say("\n".join(matrix("Y", whole[0])))
    say("All at once, or the first two steps and then the other three: the difference")
    say(f"  of the outputs, if the state is carried over   {difference:.1e}")
    say(f"  of the final states                            {state_difference:.1e}")
    say(f"  of the outputs, if it starts from zero again   {forgotten:.1e}")
    return {"difference": difference, "state_difference": state_difference, "without_state": forgotten}


def both_ways(say: Say, inputs: torch.Tensor) -> dict[str, Any]:
    """Read in both directions, and check the backward one against a plain layer fed from each end."""
    core = RecurrentCore("rnn", 3, 2, options=CoreOptions(bidirectional=True))
    inputs = inputs[:, :3] / 45  # between 0 and 1: tanh of large numbers is 1, whatever they are
    outputs, (state,) = core(inputs, lengths=LENGTHS)
    backward = RecurrentCore("rnn", 3, 2)
    twin = {name.removesuffix("_reverse"): weights for name, weights in core.state_dict().items() if "reverse" in name}
    backward.load_state_dict(twin)

    say("")
    say("Two directions of 2 units side by side, on the first three steps, divided by")
    say(f"45, with lengths {LENGTHS.tolist()}:")
    differences = []
    for b, length in enumerate(LENGTHS.tolist()):
        expected, _ = backward(inputs[b : b + 1, :length].flip(1))  # from its own end to its beginning
        differences.append(greatest_difference(outputs[b, :length, 2:], expected[0].flip(0)))
        for t, row in enumerate(outputs[b]):
            forth, back = (" ".join(f"{x:6.3f}" for x in half) for half in row.split(2))
            mark = "  begins here" if t == length - 1 else "" if t < length else "  past the end"
            say(f"  {b}, step {t}:  forward {forth}   backward {back}{mark}")
    difference = max(differences)
    say("A plain layer with the backward weights, fed from each sequence's own end to its")
    say(f"beginning, says the same but for {difference:.1e}.")
    return {"backward_difference": difference, "backward_ends_at_first": bool(torch.equal(state[1], outputs[:, 0, 2:]))}
