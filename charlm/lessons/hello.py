"""A first language model: it reads 'hihell' and predicts 'ihello'.

A language model reads tokens, here letters, and predicts the next one at each
step. So the targets are the inputs moved by one place:

    inputs   h i h e l l
    targets  i h e l l o

The letter h is followed once by i and once by e. The model cannot predict both
from the letter h alone. It needs its state, which depends on earlier letters.

Shapes: B = 1 sequence, T = 6 time steps, V = 6 tokens: 5 letters and the
unknown token.
"""

from typing import Any

import torch

from charlm.config import ModelConfig
from charlm.lessons import LessonOptions, Say
from charlm.text.tokenizer import CharTokenizer
from charlm.training.loss import sequence_loss
from charlm.training.network import LanguageModel

TEXT = "hihello"
MAX_STEPS = 50
CORRECT_IN_A_ROW = 5
"""Training stops after this many correct predictions in a row, because a single one may be chance."""

INTRODUCTION = """\
A language model reads tokens, here letters, and predicts the next letter at
each step. This model has an embedding of 5 numbers per letter, an LSTM of 5
units, and a linear layer that gives the logits of the next letter.

The letters of {text!r} have the ids {ids}.
  inputs:  {inputs}
  targets: {targets}

Each line is one training step: the cross-entropy loss in nats per letter, and
the most probable letters.

At first all 6 tokens (the letters {letters} and the unknown token) are about
equally probable, so the loss starts near ln 6 = 1.79.

step    loss  predicted"""
SUCCESS = """
After {step} steps the model has predicted 'ihello' five times in a row. Look at the
letter h in the inputs: it is followed once by i and once by e. The model can
tell the two apart only by its state.

The same with the commands of charlm:
  charlm train hello
  charlm sample -m hello --prime h -n 6 --temp 0"""
FAILURE = """
After {step} steps the model predicts {predicted!r}, not 'ihello'. Look at the last
losses: training needs more steps. Try another seed: charlm lesson hello --seed 2"""


def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Train until the predictions are correct `CORRECT_IN_A_ROW` times in a row, for at most `MAX_STEPS` steps.

    Returns:
        The number of steps, the last loss in nats per letter, and the predicted text.
    """
    torch.manual_seed(options.seed)
    tokenizer = CharTokenizer.from_text(TEXT)
    ids = torch.tensor(tokenizer.encode(TEXT)[None, :], dtype=torch.int64)  # (B, T + 1)
    inputs, targets = ids[:, :-1], ids[:, 1:]  # (B, T) each
    model = LanguageModel(ModelConfig(vocab_size=tokenizer.vocab_size, embedding_dim=5, hidden_size=5))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)

    letters = {
        "ids": ", ".join(f"{letter}={index}" for index, letter in enumerate(tokenizer.tokens) if index),
        "letters": " ".join(tokenizer.tokens[1:]),
        "inputs": tokenizer.decode(inputs[0]),
        "targets": tokenizer.decode(targets[0]),
    }
    say(INTRODUCTION.format(text=TEXT, **letters))
    step, loss, predicted, in_a_row = 0, torch.tensor(0.0), "", 0
    while step < MAX_STEPS and in_a_row < CORRECT_IN_A_ROW:
        logits, _ = model(inputs)  # (B, T, V)
        loss = sequence_loss(logits, targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        step += 1
        predicted = tokenizer.decode(logits.argmax(dim=-1)[0])
        in_a_row = in_a_row + 1 if predicted == TEXT[1:] else 0
        say(f"{step:4d}  {float(loss.detach()):6.4f}  {predicted}")
    say((SUCCESS if predicted == TEXT[1:] else FAILURE).format(step=step, predicted=predicted))
    return {"steps": step, "loss_nats": float(loss.detach()), "predicted": predicted}
