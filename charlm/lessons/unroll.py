"""The same layer over a whole tensor, with sequences of different lengths.

Nobody writes Y0, Y1, Y2 by hand for a hundred steps. The sequences go into one tensor, (B, T, inputs): B sequences,
T steps, the numbers of one step. Short sequences are padded to T, and their true lengths are given beside them. A
padded step must then count for nothing, and there are two things to look for:

    outputs[b, t] = 0                        for t >= lengths[b]
    state[b]      = outputs[b, lengths[b]-1] the last real one, not the last
"""

from typing import Any

import numpy as np
import torch

from charlm.lessons import LessonOptions, Say
from charlm.lessons.cell import UNITS, X0, X1, two_steps_model
from charlm.lessons.show import matrix

LENGTHS = torch.tensor([2, 1, 2, 2])


@torch.no_grad()
def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Read four sequences, the second of which is over after one step."""
    torch.manual_seed(options.seed)
    core = two_steps_model(UNITS).core  # the weights of `charlm lesson cell`
    inputs = torch.from_numpy(np.stack([X0, X1], axis=1))  # (B=4, T=2, inputs=3)
    outputs, (state,) = core(inputs, lengths=LENGTHS)  # (B=4, T=2, H=5), (L=1, B=4, H=5)

    say(f"X0 and X1 of lesson cell as one tensor, {tuple(inputs.shape)}, lengths {LENGTHS.tolist()}.")
    say("A line is a step; sequence 1 is over after one:")
    for b, length in enumerate(LENGTHS.tolist()):
        for t in range(inputs.shape[1]):
            numbers, answer = (
                " ".join(f"{x:{form}}" for x in row) for form, row in ((".0f", inputs[b, t]), ("6.3f", outputs[b, t]))
            )
            say(f"  {b}, step {t}:  {numbers}  -> {answer}{'   past its end' if t >= length else ''}")
    say(f"The final state, {tuple(state.shape)}: one layer, four sequences, {UNITS} units:")
    say("\n".join(matrix("h", state[0])))

    padded = torch.arange(inputs.shape[1]) >= LENGTHS[:, None]  # (B, T)
    last = outputs[torch.arange(len(LENGTHS)), LENGTHS - 1]
    figures = {
        "shapes": {"inputs": list(inputs.shape), "outputs": list(outputs.shape), "state": list(state.shape)},
        "greatest_past_the_end": float(outputs[padded].abs().max()),
        "state_is_last_output": bool(torch.equal(state[0], last)),
    }
    say(f"Greatest output past an end: {figures['greatest_past_the_end']}")
    same = "yes" if figures["state_is_last_output"] else "no"
    say(f"Each state is its sequence's last real output, to the bit: {same}")
    say("")
    say("Look at the second row of h: it is step 0 of sequence 1, the last that was")
    say("real. Had the layer read on over the padding, the state would also tell how")
    say("much was padded.")
    return figures
