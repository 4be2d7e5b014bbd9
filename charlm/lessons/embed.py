"""Padding, and the look-up that is a matrix product.

Tokens come as ids, in sequences of any length. To go through a layer together they must be equally long: short ones
are filled up with zeros in front, long ones cut in front, so that the end, which is what a model has just read, is
always real. Then each id becomes a row of numbers, its embedding. On paper that is a one-hot row times a matrix; in
fact it is a look-up of the row, the same numbers without the multiplications by zero.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from charlm.lessons import LessonOptions, Say
from charlm.lessons.show import matrix
from charlm.training.batches import pad_front
from charlm.training.network import Classifier, RecurrentCore

SEQUENCES = [[1, 2, 4, 2, 3], [0, 1, 2], [4, 5, 2, 1], [5, 2, 1, 3, 4, 1, 2, 3, 4, 5]]
LENGTH, VOCABULARY, WIDTH, UNITS = 5, 6, 3, 4


@torch.no_grad()
def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Pad four sequences, look their tokens up, and send them through an LSTM."""
    torch.manual_seed(options.seed)
    padded = pad_front(SEQUENCES, LENGTH)
    say(f"Four sequences of ids, made {LENGTH} long: filled with zeros in front, or cut there.")
    for sequence, row in zip(SEQUENCES, padded, strict=True):
        say(f"  {' '.join(map(str, sequence)):19}  ->  {' '.join(map(str, row))}")

    embedding = nn.Embedding(VOCABULARY, WIDTH)
    ids = torch.from_numpy(padded)  # (B=4, T=5), int64
    looked_up = embedding(ids)  # (B=4, T=5, E=3)
    one_hot = F.one_hot(ids, VOCABULARY).float()  # (B=4, T=5, V=6)
    product = one_hot @ embedding.weight
    say("")
    say(f"The embedding, {WIDTH} numbers for each of {VOCABULARY} tokens, at random; training moves them:")
    say("\n".join(matrix("E", embedding.weight)))
    say("Tokens 2 and 3, as one-hot rows times E and as rows of E:")
    for t in (3, 4):
        ones, numbers = " ".join(f"{x:.0f}" for x in one_hot[0, t]), " ".join(f"{x:6.3f}" for x in product[0, t])
        row = " ".join(f"{x:6.3f}" for x in looked_up[0, t])
        say(f"  {ones} x E = {numbers}   E[{int(ids[0, t])}] = {row}")
    equal = bool(torch.equal(looked_up, product))
    say(f"Equal for all {ids.numel()} tokens, to the bit: {'yes' if equal else 'no'}.")

    model = Classifier(RecurrentCore("lstm", WIDTH, UNITS), 2, embedding)
    answers = model(ids=ids)
    pauses = torch.rand(*ids.shape, 1)  # a number beside each token: how long one paused after it, say
    both = Classifier(RecurrentCore("lstm", WIDTH + 1, UNITS), 2, embedding)(pauses, ids)
    outputs, _ = model.core(looked_up)
    shapes = {"ids": ids, "embedded": looked_up, "outputs": outputs, "answers": answers, "with numbers": both}
    say("")
    say(f"The embedding before an LSTM of {UNITS} units, with a head of two classes at the end:")
    for name, tensor in shapes.items():
        say(f"  {name:12}  {tuple(tensor.shape)}")
    say(f"'with numbers' reads a real number beside each token, {WIDTH} + 1 at a step.")
    say("")
    say("Look at the fourth sequence: it lost its beginning and kept its end. And count:")
    say("the product took 20 x 6 x 3 multiplications, the look-up none. With 10,000 words")
    say("and 300 numbers each, that is the difference between seconds and nothing.")
    return {
        "padded": padded.tolist(),
        "look_up_is_product": equal,
        "shapes": {name: list(tensor.shape) for name, tensor in shapes.items()},
    }
