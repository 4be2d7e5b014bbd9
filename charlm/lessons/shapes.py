"""What goes in and what comes out: shapes, and the number of weights.

A letter becomes a row with a single one, 'one-hot': h = 1000, e = 0100, l = 0010, o = 0001. From then on a layer knows
only numbers. Everything has the shape (B, T, width): B sequences, T steps, and the width is 4 going in and the number
of units coming out. The state is (L, B, H), what every layer holds for every sequence at its end; an lstm holds two
such things, its output h and its memory c.
"""

from typing import Any

import torch
from torch.nn import functional as F

from charlm.config import CELLS
from charlm.lessons import LessonOptions, Say
from charlm.lessons.show import matrix
from charlm.model import Classifier, RecurrentCore

LETTERS = "helo"
UNITS = 2


def one_hot(*words: str) -> torch.Tensor:
    """Words of equal length as rows with a single one, (B, T, 4), float32."""
    return F.one_hot(torch.tensor([[LETTERS.index(letter) for letter in word] for word in words]), 4).float()


@torch.no_grad()
def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Send 'hello' through layers of two units, a letter, a word and three words at a time."""
    torch.manual_seed(options.seed)
    shapes: dict[str, Any] = {}
    core = RecurrentCore("rnn", len(LETTERS), UNITS)
    words = one_hot("hello", "eolll", "lleel")

    say("'hello', a row a letter, as an rnn of 2 units reads it:")
    outputs, _ = core(words[:1])
    for letter, row, output in zip("hello", words[0], outputs[0], strict=True):
        say(f"  {letter}   {' '.join(f'{x:.0f}' for x in row)}   ->  {' '.join(f'{x:6.3f}' for x in output)}")
    say("The two l differ: the same letter, after another past.")
    say("")
    say("                          inputs     outputs    state")
    for title, inputs in {"one step, h": words[:1, :1], "five steps, hello": words[:1], "three words": words}.items():
        outputs, state = core(inputs)
        shapes[title] = [list(inputs.shape), list(outputs.shape), list(state[0].shape)]
        say(f"  {title:22}  {_row(inputs, outputs, *state)}")

    say("")
    say("The three words with lengths 5, 4, 3, read by each kind of cell:")
    lengths = torch.tensor([5, 4, 3])
    for cell in CELLS:
        outputs, state = RecurrentCore(cell, len(LETTERS), UNITS)(words, lengths=lengths)
        shapes[cell] = [list(part.shape) for part in (outputs, *state)]
        names = "(h, c)" if len(state) == 2 else "h"
        say(f"  {cell:22}  {_row(words, outputs, *state)}  {names}")
    say("The outputs of the last one, a column a letter; past a word's end they are zero:")
    for word, output in zip(("hello", "eolll", "lleel"), outputs, strict=True):
        say("\n".join(matrix(word, output.T)))

    classifier = Classifier(core, 3)
    shapes["last output only"] = list(core.last_output(core(words, lengths=lengths)[1]).shape)
    shapes["classifier"] = list(classifier(words, lengths=lengths).shape)
    say("")
    say(f"Only the last output of each word: {tuple(shapes['last output only'])}.")
    say(f"A head of three classes on it answers once a word: {tuple(shapes['classifier'])}.")

    stacked = RecurrentCore("rnn", len(LETTERS), UNITS, num_layers=3)
    counts = [_one_bias(layer) for layer in stacked.layers]
    say("")
    say("Three layers of 2 units on top of each other; each has its Wx, Wy and b:")
    for index, count in enumerate(counts):
        width = UNITS if index else len(LETTERS)
        say(f"  layer {index}: {width} x {UNITS} + {UNITS} x {UNITS} + {UNITS} = {count}")
    held = sum(weights.numel() for weights in stacked.parameters())
    say(f"  together {sum(counts)}")
    say(f"PyTorch keeps two biases a layer and adds them up: {held} numbers are stored.")
    say("")
    say("Look at layer 0: only there does the alphabet count. With 65 letters it would")
    say("have 65 x 2 + 6 = 136 weights, and the layers above it 10 each as before.")
    return {"shapes": shapes, "parameters_one_bias": counts, "parameters": sum(counts), "parameters_held": held}


def _row(*tensors: torch.Tensor) -> str:
    return "  ".join(f"{tuple(tensor.shape)!s:9}" for tensor in tensors)


def _one_bias(layer: torch.nn.Module) -> int:
    return sum(weights.numel() for name, weights in layer.named_parameters() if "bias_hh" not in name)
