"""The cross-entropy loss of a sequence.

At each step a model computes a number for each possible token, its logit. The
softmax turns the logits into probabilities, and the loss of the step is the
negative logarithm of the true token's probability p.

The loss is 0 if p is 1, and ln 2 = 0.693 if p is 1/2. Its unit is the nat. The
loss of a sequence is the mean over its steps, in nats per token. The mean can
be weighted. A weight of 0 leaves a step out, for instance a padded step.

Shapes: B = 1 sequence, T = 3 time steps, V = 2 tokens.
"""

from typing import Any

import numpy as np
import torch

from charlm.lessons import LessonOptions, Say
from charlm.training.loss import sequence_loss

EXAMPLES = {
    "mixed": [[0.2, 0.7], [0.6, 0.2], [0.2, 0.9]],
    "a little right": [[0.3, 0.7]] * 3,
    "more right": [[0.1, 0.9]] * 3,
    "sure, and wrong": [[1.0, 0.0]] * 3,
    "wrong once": [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]],
}
"""Logits, (T, V), of five predictions. The true token is always token 1."""

TARGETS = torch.ones(1, 3, dtype=torch.int64)  # (B, T)

INTRODUCTION = """\
A model gives each possible token v a logit z[v]. The softmax turns logits into
probabilities, and the loss of a step depends on the true token's probability:

  p[v] = exp(z[v]) / sum of exp(z[w]) over all tokens w
  loss = -ln(p[true token])

Here are three steps with two tokens, 0 and 1. The true token is 1 each time.
The loss of the sequence is the mean over the steps, in nats per token:

  logits of 0, 1   probabilities of 0, 1   -ln(p) of token 1"""
CONCLUSION = """
Look at 'sure, and wrong'. A model that gives both tokens the probability 1/2
has a loss of ln 2 = 0.693. A model that is confident in the wrong token has a
higher loss, here 1.313. Then look at the weights 1 0 1: the second step, where
the model preferred the wrong token, does not count, so the loss is lower."""


def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Compute one loss by hand, and others with `sequence_loss`."""
    say(INTRODUCTION)
    step_losses = []
    for logits in EXAMPLES["mixed"]:
        p = np.exp(logits) / np.exp(logits).sum()  # (V,), the softmax
        step_losses.append(-np.log(p[1]))
        say(f"  {logits[0]:.1f} {logits[1]:.1f}          {p[0]:.3f} {p[1]:.3f}             {step_losses[-1]:.6f}")
    say(f"                                    mean:  {np.mean(step_losses):.6f}")
    say("")
    say("The losses of five such sequences, computed by charlm:")
    say("")
    say("  logits of the three steps          loss       prediction")
    losses = {}
    for name, steps in EXAMPLES.items():
        losses[name] = float(sequence_loss(torch.tensor([steps]), TARGETS))
        say(f"  {'  '.join(f'[{x:.1f} {y:.1f}]' for x, y in steps):31}    {losses[name]:.6f}   {name}")

    say("")
    say("The first sequence again, as a weighted mean of its three steps. A weight of 0")
    say("leaves a step out, for instance a padded one:")
    say("")
    say("  weights   loss")
    weighted = {}
    for weights in ([1, 1, 1], [1, 0, 1], [0, 1, 0], [2, 1, 1]):
        key = " ".join(map(str, weights))
        loss = sequence_loss(torch.tensor([EXAMPLES["mixed"]]), TARGETS, torch.tensor([weights], dtype=torch.float32))
        weighted[key] = float(loss)
        say(f"  {key}     {weighted[key]:.6f}")
    say(CONCLUSION)
    return {"by_hand": float(np.mean(step_losses)), "losses": losses, "weighted": weighted}
