"""Padding, and the embedding of tokens.

A model reads tokens as ids, which are integers. All sequences of a batch must
have the same length. Here short sequences are padded with zeros at the start,
and long ones are cut at the start, so the last token of each is always kept.

Then each id becomes a vector, its embedding: a row of the matrix W.

Shapes: B = 4 sequences, T = 5 time steps, V = 6 tokens, E = 3, H = 4 units.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.lessons import LessonOptions, Say
from charlm.lessons.arrays import format_matrix, format_row, max_difference
from charlm.training.batches import pad_front
from charlm.training.network import Classifier, RecurrentCore

SEQUENCES = [[1, 2, 4, 2, 3], [1, 2], [4, 5, 2, 1], [5, 2, 1, 3, 4, 1, 2, 3, 4, 5]]
LENGTH, VOCAB_SIZE, EMBEDDING_DIM, UNITS = 5, 6, 3, 4

INTRODUCTION = """\
A model reads tokens as ids, which are integers. In a batch all sequences have
the same length. Here are four sequences of ids, made {length} long: short ones are
padded with zeros at the start, long ones are cut at the start. The id 0 stands
for padding only.
"""
EMBEDDING = """
Each of the {tokens} tokens has an embedding: a vector of {dim} numbers, one row of the
matrix W. The numbers are random at first, and training changes them. The
product of an id's one-hot vector and W only looks up a row:

  one_hot(id) W = W[id]
"""
MASK = """
Padding has to be masked: a layer that reads it as tokens changes its state. The
last output for the second sequence, which has {length} tokens, compared with that of
the sequence alone:
"""
CLASSIFIER = """
An LSTM of {units} units reads the embeddings, and a linear layer on its last output
gives the logits of two classes. The shapes are:
"""
CONCLUSION = """
Look at the fourth sequence: its first five tokens were cut off, and its last
five were kept. Then compare the two ways to get an embedding. For each token,
the product needs 6 x 3 = 18 multiplications, and the look-up needs none. With
10,000 words and 300 numbers per word, the product would need 3 million."""


@torch.no_grad()
def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Pad four sequences, look up their embeddings, and classify them with an LSTM."""
    torch.manual_seed(options.seed)
    padded = pad_front(SEQUENCES, LENGTH)
    say(INTRODUCTION.format(length=LENGTH))
    for sequence, row in zip(SEQUENCES, padded, strict=True):
        say(f"  {' '.join(map(str, sequence)):19}  ->  {' '.join(map(str, row))}")

    embedding = nn.Embedding(VOCAB_SIZE, EMBEDDING_DIM)
    ids = torch.from_numpy(padded)  # (B, T), int64
    embedded = embedding(ids)  # (B, T, E)
    one_hot = F.one_hot(ids, VOCAB_SIZE).float()  # (B, T, V)
    product = one_hot @ embedding.weight  # (B, T, E)
    say(EMBEDDING.format(tokens=VOCAB_SIZE, dim=EMBEDDING_DIM))
    say(format_matrix("W", embedding.weight))
    say("Tokens 2 and 3: the product of the one-hot vector and W, and the row of W:")
    for t in (3, 4):
        row = f"W[{int(ids[0, t])}] = {format_row(embedded[0, t])}"
        say(f"  {format_row(one_hot[0, t], 0)} x W = {format_row(product[0, t])}   {row}")
    equal = bool(torch.equal(embedded, product))
    say(f"Equal for all {ids.numel()} tokens: {'yes' if equal else 'no'}")

    model = Classifier(RecurrentCore("lstm", EMBEDDING_DIM, UNITS), 2, embedding)
    logits = model(ids=ids)  # (B, 2)
    numbers = torch.rand(*ids.shape, 1)  # (B, T, 1), one more number for each token
    with_numbers = Classifier(RecurrentCore("lstm", EMBEDDING_DIM + 1, UNITS), 2, embedding)(numbers, ids)  # (B, 2)
    outputs, _ = model.core(embedded)  # (B, T, H)
    shapes = {"ids": ids, "embedded": embedded, "outputs": outputs, "answers": logits, "with numbers": with_numbers}
    say(CLASSIFIER.format(units=UNITS))
    meanings = ("(B, T)", "(B, T, E)", "(B, T, H)", "(B, classes)", "(B, classes), if each step also has a number")
    for (name, tensor), meaning in zip(shapes.items(), meanings, strict=True):
        say(f"  {name:12}  {tuple(tensor.shape)!s:9}   {meaning}")
    differences = compare_padding(say, model.core, embedding, ids[1])
    say(CONCLUSION)
    return {
        "padded": padded.tolist(),
        "look_up_is_product": equal,
        "padding": differences,
        "shapes": {name: list(tensor.shape) for name, tensor in shapes.items()},
    }


def compare_padding(say: Say, core: RecurrentCore, embedding: nn.Embedding, padded: Tensor) -> dict[str, float]:
    """Return how far padding changes the last output of a sequence, (T,), that is padded at the start."""
    tokens = padded[padded != 0]
    length = len(tokens)
    alone = core(embedding(tokens[None]))[0][0, -1]  # (H,)
    at_end = F.pad(tokens, (0, len(padded) - length))
    masked = core(embedding(at_end[None]), lengths=torch.tensor([length]))[0][0, length - 1]
    differences = {
        "read": max_difference(alone, core(embedding(padded[None]))[0][0, -1]),
        "masked": max_difference(alone, masked),
    }
    say(MASK.format(length=length))
    say(f"  zeros at the start, read as tokens            difference {differences['read']:.3f}")
    say(f"  zeros at the end, masked by the true length   difference {differences['masked']:.3f}")
    return differences
