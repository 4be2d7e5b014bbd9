"""One-hot vectors, the shapes of tensors, and the number of weights.

A layer computes with numbers, so each letter becomes a one-hot vector: zeros,
and a single one at the letter's position. With the four letters h, e, l, o:

    h = 1 0 0 0     e = 0 1 0 0     l = 0 0 1 0     o = 0 0 0 1

A layer with I inputs and H units reads inputs of shape (B, T, I) and returns
outputs of shape (B, T, H). The state after the last step has the shape
(L, B, H). An LSTM has two such states: the hidden state h, which is also its
output, and the cell state c. A GRU and a plain RNN have only h.

Such a layer has I x H input weights, H x H recurrent weights and H biases.

Shapes: B sequences, T time steps, I = 4 inputs, H = 2 units, L layers.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from charlm.config import CELLS
from charlm.lessons import LessonOptions, Say
from charlm.lessons.arrays import format_matrix, format_row
from charlm.training.network import Classifier, RecurrentCore

LETTERS = "helo"
UNITS = 2
WORDS = ("hello", "eolll", "lleel")

INTRODUCTION = """\
A layer reads numbers, so each letter becomes a one-hot vector: zeros, and a
single one at the letter's position. Here are the vectors of 'hello', and the
outputs of a plain RNN with 2 units and random weights:
"""
CONCLUSION = """
Look at layer 0. It is the only layer whose size depends on the alphabet. With
65 letters it would have 65 x 2 + 6 = 136 weights, and the layers above it would
still have 10 weights each."""


@torch.no_grad()
def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Read a letter, a word and three words with layers of two units, and print all shapes."""
    torch.manual_seed(options.seed)
    core = RecurrentCore("rnn", len(LETTERS), UNITS)
    words = one_hot(WORDS)
    say(INTRODUCTION)
    for letter, row, output in zip("hello", words[0], core(words[:1])[0][0], strict=True):
        say(f"  {letter}   {format_row(row, 0)}   ->  {format_row(output)}")
    say("The outputs at the two letters l differ, because the letters before them differ.")
    say("")
    say("Inputs have the shape (B, T, I), outputs (B, T, H) and states (L, B, H): B")
    say("sequences, T time steps, I = 4 inputs, H = 2 units, L = 1 layer.")
    say("                          inputs     outputs    state")
    shapes: dict[str, Any] = {}
    for title, inputs in {"one step, h": words[:1, :1], "five steps, hello": words[:1], "three words": words}.items():
        outputs, state = core(inputs)
        shapes[title] = [list(inputs.shape), list(outputs.shape), list(state[0].shape)]
        say(f"  {title:22}  {_format_shapes(inputs, outputs, *state)}")
    shapes |= read_with_lengths(say, core, words)
    counts = count_weights(say)
    say(CONCLUSION)
    return {"shapes": shapes, **counts}


def one_hot(words: tuple[str, ...]) -> Tensor:
    """Return words of equal length as one-hot vectors, (B, T, I), float32."""
    ids = torch.tensor([[LETTERS.index(letter) for letter in word] for word in words])  # (B, T)
    return F.one_hot(ids, len(LETTERS)).float()


def read_with_lengths(say: Say, core: RecurrentCore, words: Tensor) -> dict[str, Any]:
    """Read words of different lengths with each kind of cell, and classify each word."""
    shapes: dict[str, Any] = {}
    lengths = torch.tensor([5, 4, 3])  # (B,)
    say("")
    say("The three words, cut to lengths 5, 4 and 3, with each kind of cell:")
    for cell in CELLS:
        outputs, state = RecurrentCore(cell, len(LETTERS), UNITS)(words, lengths=lengths)
        shapes[cell] = [list(part.shape) for part in (outputs, *state)]
        names = "(h, c)" if len(state) == 2 else "h"
        say(f"  {cell:22}  {_format_shapes(words, outputs, *state)}  {names}")
    say("The outputs of the rnn. Each column is one letter; after the end of a word the")
    say("outputs are zero:")
    for word, output in zip(WORDS, outputs, strict=True):
        say(format_matrix(word, output.T))

    last = core.last_output(core(words, lengths=lengths)[1])  # (B, H)
    logits = Classifier(core, 3)(words, lengths=lengths)  # (B, 3)
    say("")
    say(f"The output at the last letter of each word:         {tuple(last.shape)}")
    say(f"With a linear layer on it, logits of three classes: {tuple(logits.shape)}")
    return {**shapes, "last output only": list(last.shape), "classifier": list(logits.shape)}


def count_weights(say: Say) -> dict[str, Any]:
    """Count the weights of three stacked layers."""
    stacked = RecurrentCore("rnn", len(LETTERS), UNITS, num_layers=3)
    counts = [
        sum(weights.numel() for name, weights in layer.named_parameters() if "bias_hh" not in name)
        for layer in stacked.layers
    ]
    stored = sum(weights.numel() for weights in stacked.parameters())
    say("")
    say("The number of weights in three stacked layers of 2 units. Each layer has input")
    say("weights Wx, recurrent weights Wy and a bias b:")
    for index, count in enumerate(counts):
        width = UNITS if index else len(LETTERS)
        say(f"  layer {index}: {width} x {UNITS} + {UNITS} x {UNITS} + {UNITS} = {count}")
    say(f"  total:   {sum(counts)}")
    say(f"PyTorch has two biases per layer and adds them, so it stores {stored} numbers.")
    return {"parameters_one_bias": counts, "parameters": sum(counts), "parameters_held": stored}


def _format_shapes(*tensors: Tensor) -> str:
    return "  ".join(f"{tuple(tensor.shape)!s:9}" for tensor in tensors)
