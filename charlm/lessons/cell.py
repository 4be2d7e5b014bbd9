"""One recurrent layer by hand.

A recurrent layer is one line of arithmetic, used again at every step. At the first step it sees only its input; from
then on also what it said one step ago, and this is all the memory it has:

    Y0 = tanh(X0 Wx + b)
    Y1 = tanh(Y0 Wy + X1 Wx + b)

A row is a sequence, so four sequences of two steps are learnt from at once. The same numbers then come from the
library's core, which training uses, and from the engine, which writes and scores without PyTorch.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from charlm.config import ModelConfig
from charlm.engine.checkpoint import Checkpoint
from charlm.engine.rnn import RecurrentNetwork
from charlm.lessons import LessonOptions, Say
from charlm.lessons.show import greatest_difference, matrix
from charlm.text.tokenizer import CharTokenizer
from charlm.training.network import LanguageModel

X0 = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 0, 1]], dtype=np.float32)  # the first step of four sequences
X1 = np.array([[9, 8, 7], [0, 0, 0], [6, 5, 4], [3, 2, 1]], dtype=np.float32)  # the second
UNITS = 5


def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Take two steps three times: by hand, with the library's core, with the engine."""
    torch.manual_seed(options.seed)
    model = two_steps_model(UNITS)
    w = {name.rpartition(".")[2]: array for name, array in model.to_tensors().items()}
    w_x, w_y, b = w["weight_ih_l0"].T, w["weight_hh_l0"].T, w["bias_ih_l0"]

    y0 = np.tanh(X0 @ w_x + b)
    y1 = np.tanh(y0 @ w_y + X1 @ w_x + b)

    say(f"Three inputs, {UNITS} units. The weights, drawn at random with seed {options.seed}:")
    for name, values in {"Wx": w_x, "Wy": w_y, "b": b}.items():
        say("\n".join(matrix(f"{name:2}", values)))
    say("The first step, Y0 = tanh(X0 Wx + b); each row is a sequence:")
    say("\n".join([*matrix("X0", X0, 0), *matrix("Y0", y0)]))
    say("The second step hears what the first one said, Y1 = tanh(Y0 Wy + X1 Wx + b):")
    say("\n".join([*matrix("X1", X1, 0), *matrix("Y1", y1)]))

    with torch.no_grad():
        library = model.core(torch.from_numpy(np.stack([X0, X1], axis=1)))[0].numpy()  # (B=4, T=2, H=5)
    network = engine_outputs(model)
    by_hand = np.stack([y0, y1], axis=1)
    away = {"library": greatest_difference(by_hand, library), "engine": greatest_difference(by_hand, network)}
    say("The greatest difference to these numbers, of all forty:")
    for name, difference in away.items():
        say(f"  {name:8} {difference:.1e}")
    say("")
    say("Look at the second row of Y1: its input X1 is all zeros, and yet it is not")
    say("tanh(b). That is Y0, remembered.")
    return {"y0": y0.tolist(), "y1": y1.tolist(), "difference": away}


def two_steps_model(units: int) -> LanguageModel:
    """A language model whose eight letters a to h stand for the rows of X0 and X1, so that the engine can read them."""
    model = LanguageModel(ModelConfig(vocab_size=9, cell="rnn", embedding_dim=3, hidden_size=units))
    with torch.no_grad():
        model.embedding.weight[1:] = torch.from_numpy(np.concatenate([X0, X1]))  # id 0 is the unknown token's
        for name, weights in model.core.named_parameters():
            if "weight" in name:
                weights.mul_(0.3)  # small: tanh of anything much above 2 is 1
            elif "bias_ih" in name:
                weights.normal_(std=0.1)
    return model


def engine_outputs(model: LanguageModel) -> npt.NDArray[np.float32]:
    """What the NumPy engine makes of the same weights: outputs, (B=4, T=2, H)."""
    tokenizer = CharTokenizer("abcdefgh")
    network = RecurrentNetwork(Checkpoint(config=model.config, tokenizer=tokenizer, tensors=model.to_tensors()))
    ids = np.stack([tokenizer.encode("abcd"), tokenizer.encode("efgh")], axis=1)
    return network.read(ids, network.zero_state(4))
