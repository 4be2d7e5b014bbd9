"""A recurrent layer, computed by hand.

A recurrent layer reads a sequence step by step. At each step it computes its
output Y from the input X of this step and from its own previous output:

    Y0 = tanh(X0 Wx + b)
    Y1 = tanh(Y0 Wy + X1 Wx + b)

The weights Wx, Wy and b are the same at every step. The output that is passed
on to the next step is called the hidden state. It is the layer's only memory.

The lesson computes two steps from these equations. Then it compares them with
charlm's two implementations: the PyTorch network, which is used for training,
and the NumPy network, which is used to generate and to score text.

Shapes: B = 4 sequences, T = 2 time steps, I = 3 inputs per step, H = 5 units.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from charlm.config import ModelConfig
from charlm.engine.checkpoint import Checkpoint
from charlm.engine.rnn import RecurrentNetwork
from charlm.lessons import LessonOptions, Say
from charlm.lessons.arrays import format_matrix, max_difference
from charlm.text.tokenizer import CharTokenizer
from charlm.training.network import LanguageModel

X0 = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 0, 1]], dtype=np.float32)  # (B, I), the first time step
X1 = np.array([[9, 8, 7], [0, 0, 0], [6, 5, 4], [3, 2, 1]], dtype=np.float32)  # (B, I), the second time step
UNITS = 5

INTRODUCTION = """\
A recurrent layer reads a sequence step by step. At each step it computes its
output Y from the input X of this step and from its own previous output:

  Y0 = tanh(X0 Wx + b)               first step
  Y1 = tanh(Y0 Wy + X1 Wx + b)       second step

This lesson computes both steps for four sequences, with 3 inputs per step and
5 units. X0 is the first step of each sequence and X1 the second. Row b of X0,
X1, Y0 and Y1 belongs to sequence b.
"""
CONCLUSION = """
Look at the second row of Y1. The input of this sequence at the second step is
zero, but its output is not tanh(b). The term Y0 Wy is added, so the output also
depends on the first step. In this way information passes from step to step.
The differences are rounding errors of 32-bit numbers."""


def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Compute two steps by hand, with the PyTorch network and with the NumPy network."""
    torch.manual_seed(options.seed)
    model = two_step_model(UNITS)
    w = {name.rpartition(".")[2]: array for name, array in model.to_tensors().items()}
    w_x, w_y, b = w["weight_ih_l0"].T, w["weight_hh_l0"].T, w["bias_ih_l0"]  # (I, H), (H, H), (H,)

    y0 = np.tanh(X0 @ w_x + b)  # (B, H)
    y1 = np.tanh(y0 @ w_y + X1 @ w_x + b)  # (B, H)

    say(INTRODUCTION)
    say(f"The weights are random numbers, drawn with seed {options.seed}:")
    for name, values in {"Wx": w_x, "Wy": w_y, "b": b}.items():
        say(format_matrix(f"{name:2}", values))
    say("First step, Y0 = tanh(X0 Wx + b):")
    say(format_matrix("X0", X0, 0))
    say(format_matrix("Y0", y0))
    say("Second step, Y1 = tanh(Y0 Wy + X1 Wx + b):")
    say(format_matrix("X1", X1, 0))
    say(format_matrix("Y1", y1))

    with torch.no_grad():
        inputs = torch.from_numpy(np.stack([X0, X1], axis=1))  # (B, T, I)
        library = model.core(inputs)[0].numpy()  # (B, T, H)
    by_hand = np.stack([y0, y1], axis=1)  # (B, T, H)
    differences = {
        "library": max_difference(by_hand, library),
        "engine": max_difference(by_hand, numpy_outputs(model)),
    }
    say("The same steps with charlm's two networks; maximum difference from the above:")
    say(f"  PyTorch network, for training               {differences['library']:.1e}")
    say(f"  NumPy network, for generating and scoring   {differences['engine']:.1e}")
    say(CONCLUSION)
    return {"y0": y0.tolist(), "y1": y1.tolist(), "difference": differences}


def two_step_model(units: int) -> LanguageModel:
    """Return a language model whose embeddings of the letters a to h are the rows of X0 and X1.

    The NumPy network reads only token ids. With these embeddings, ids make it read X0 and X1.
    """
    model = LanguageModel(ModelConfig(vocab_size=9, cell="rnn", embedding_dim=3, hidden_size=units))
    with torch.no_grad():
        model.embedding.weight[1:] = torch.from_numpy(np.concatenate([X0, X1]))  # id 0 is the unknown token
        for name, weights in model.core.named_parameters():
            if "weight" in name:
                weights.mul_(0.3)  # small weights, because tanh is almost 1 for every number above 2
            elif "bias_ih" in name:
                weights.normal_(std=0.1)
    return model


def numpy_outputs(model: LanguageModel) -> npt.NDArray[np.float32]:
    """Return the outputs, (B, T, H), that the NumPy network computes with the same weights."""
    tokenizer = CharTokenizer("abcdefgh")
    network = RecurrentNetwork(Checkpoint(config=model.config, tokenizer=tokenizer, tensors=model.to_tensors()))
    ids = np.stack([tokenizer.encode("abcd"), tokenizer.encode("efgh")], axis=1)  # (B, T)
    return network.outputs(ids, network.zero_state(4))
