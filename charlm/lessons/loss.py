"""The loss of a sequence by hand.

At every step a model gives each possible token a number, its logit. softmax makes probabilities of them, and the step
costs -ln of what the true token got: nothing if it was certain, ln 2 = 0.693 if it was one half. The loss of a
sequence is the mean over its steps, and a weight of 0 takes a step out of the mean, which is how padding is left out.
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
"""Logits of three steps with two tokens each. The true token is 1, three times."""

TARGETS = torch.ones(1, 3, dtype=torch.int64)


def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Work out one loss step by step, and others with the library."""
    say("Two tokens, three steps, the true token is 1 each time. One example by hand:")
    say("")
    say("  logits         softmax          -ln of the second")
    costs = []
    for pair in EXAMPLES["mixed"]:
        probs = np.exp(pair) / np.exp(pair).sum()
        costs.append(-np.log(probs[1]))
        say(f"  {pair[0]:.1f} {pair[1]:.1f}   ->   {probs[0]:.3f} {probs[1]:.3f}   ->   {costs[-1]:.6f}")
    say(f"                            mean:  {np.mean(costs):.6f}")
    say("")
    say("sequence_loss of the library, in nats a token:")
    losses = {}
    for name, logits in EXAMPLES.items():
        losses[name] = float(sequence_loss(torch.tensor([logits]), TARGETS))
        steps = "  ".join(f"[{x:.1f} {y:.1f}]" for x, y in logits)
        say(f"  {steps:31}   {losses[name]:.6f}   {name}")

    say("")
    say("The first again, with weights:")
    weighted = {}
    for weights in ([1, 1, 1], [1, 0, 1], [0, 1, 0], [2, 1, 1]):
        key = " ".join(map(str, weights))
        loss = sequence_loss(torch.tensor([EXAMPLES["mixed"]]), TARGETS, torch.tensor([weights], dtype=torch.float32))
        weighted[key] = float(loss)
        say(f"  {key}   {weighted[key]:.6f}")
    say("")
    say("Look at 'sure, and wrong': a plain guess between two costs ln 2 = 0.693, to be")
    say("wrong with conviction costs 1.313. And at the weights 1 0 1: without the wrong")
    say("step, what is left costs less.")
    return {"by_hand": float(np.mean(costs)), "losses": losses, "weighted": weighted}
