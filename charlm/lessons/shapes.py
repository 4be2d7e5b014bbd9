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
from charlm.training.network import Classifier, RecurrentCore

LETTERS = "helo"
UNITS = 2
WORDS = ("hello", "eolll", "lleel")


def one_hot(*words: str) -> torch.Tensor:
    """Words of equal length as rows with a single one, (B, T, 4), float32."""
    return F.one_hot(torch.tensor([[LETTERS.index(letter) for letter in word] for word in words]), 4).float()


@torch.no_grad()
def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Send 'hello' through layers of two units, a letter, a word and three words at a time."""
    torch.manual_seed(options.seed)
    core = RecurrentCore("rnn", len(LETTERS), UNITS)
    words = one_hot(*WORDS)
    say("'hello', a row a letter, as an rnn of 2 units reads it:")
    for letter, row, output in zip("hello", words[0], core(words[:1])[0][0], strict=True):
        say(f"  {letter}   {' '.join(f'{x:.0f}' for x in row)}   ->  {' '.join(f'{x:6.3f}' for x in output)}")
    say("The two l differ: the same letter, after another past.")
    say("")
    say("                          inputs     outputs    state")
    shapes: dict[str, Any] = {}
    for title, inputs in {"one step, h": words[:1, :1], "five steps, hello": words[:1], "three words": words}.items():
        outputs, state = core(inputs)
        shapes[title] = [list(inputs.shape), list(outputs.shape), list(state[0].shape)]
        say(f"  {title:22}  {_row(inputs, outputs, *state)}")
    shapes |= with_lengths(say, core, words)
    return {"shapes": shapes, **count_weights(say)}


def with_lengths(say: Say, core: RecurrentCore, words: torch.Tensor) -> dict[str, Any]:
    """Read words of different lengths with every kind of cell, and answer once a word."""
    shapes: dict[str, Any] = {}
    lengths = torch.tensor([5, 4, 3])
    say("")
    say("The three words with lengths 5, 4, 3, read by each kind of cell:")
    for cell in CELLS:
        outputs, state = RecurrentCore(cell, len(LETTERS), UNITS)(words, lengths=lengths)
        shapes[cell] = [list(part.shape) for part in (outputs, *state)]
        names = "(h, c)" if len(state) == 2 else "h"
        say(f"  {cell:22}  {_row(words, outputs, *state)}  {names}")
    say("The outputs of the last one, a column a letter; past a word's end they are zero:")
    for word, output in zip(WORDS, outputs, strict=True):
        say("\n".join(matrix(word, output.T)))

    last = core.last_output(core(words, lengths=lengths)[1])
    answers = Classifier(core, 3)(words, lengths=lengths)
    say("")
    say(f"Only the last output of each word: {tuple(last.shape)}.")
    say(f"A head of three classes on it answers once a word: {tuple(answers.shape)}.")
    return {**shapes, "last output only": list(last.shape), "classifier": list(answers.shape)}


def count_weights(say: Say) -> dict[str, Any]:
    """Count the weights of three layers."""
    stacked = RecurrentCore("rnn", len(LETTERS), UNITS, num_layers=3)
    counts = [
        sum(weights.numel() for name, weights in layer.named_parameters() if "bias_hh" not in name)
        for layer in stacked.layers
    ]
    say("")
    say("Three layers of 2 units on top of each other; each has its Wx, Wy and b:")
    for index, count in enumerate(counts):
        width = UNITS if index else len(LETTERS)
        say(f"  layer {index}: {width} x {UNITS} + {UNITS} x {UNITS} + {UNITS} = {count}")
    say(f"  together {sum(counts)}")
    held = sum(weights.numel() for weights in stacked.parameters())
    say(f"PyTorch keeps two biases a layer and adds them up: {held} numbers are stored.")
    say("")
    say("Look at layer 0: only there does the alphabet count. With 65 letters it would")
    say("have 65 x 2 + 6 = 136 weights, and the layers above it 10 each as before.")
    return {"parameters_one_bias": counts, "parameters": sum(counts), "parameters_held": held}


def _row(*tensors: torch.Tensor) -> str:
    return "  ".join(f"{tuple(tensor.shape)!s:9}" for tensor in tensors)
