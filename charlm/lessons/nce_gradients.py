"""Comparison of the gradients of noise-contrastive estimation (NCE) and of the softmax, on a toy vocabulary.

With few words, both losses can be computed in full. The comparison shows two facts on which the lesson skipgram relies:
the gradient of the NCE loss with random noise words is correct on average, and with more noise words it approaches the
gradient of the softmax.

Shapes: B = 1 word, V = 20 words, E = 4 numbers, K noise words.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from charlm.lessons import Say
from charlm.training.loss import log_uniform_probs, nce_loss

NUM_WORDS, NUM_NOISE, EMBEDDING_DIM = 20, 5, 4

INTRODUCTION = """\
First a test with {words} words, where all losses can be computed in full. The NCE
loss uses {noise} random noise words at a time. The mean of its gradients over many
draws must approach the gradient of the expected loss, in which each word counts
as noise as often as it is drawn on average:

   draws   relative difference"""
NOISE_WORDS = """
With more noise words, the gradient of the expected NCE loss must approach the
gradient of the softmax:

   noise words   relative difference"""


def compare_gradients(say: Say, max_draws: int) -> dict[str, Any]:
    """Print the relative differences between the gradients, and return them.

    Args:
        say: Prints a line.
        max_draws: Number of draws of noise words in the last line of the first table.
    """
    inputs, target = torch.randn(1, EMBEDDING_DIM), torch.tensor([2])  # (B, E), (B,)
    weights = torch.randn(NUM_WORDS, EMBEDDING_DIM, requires_grad=True)  # (V, E)
    # With this bias the probabilities exp(s(v)) sum to 1, as they do approximately after training.
    bias = -(inputs @ weights.T).logsumexp(dim=-1).detach().expand(NUM_WORDS)  # (V,)
    gradient = partial(torch.autograd.grad, inputs=weights)
    (expected,) = gradient(expected_nce_loss(inputs, target, weights, bias, NUM_NOISE))  # (V, E)
    (softmax,) = gradient(F.cross_entropy(inputs @ weights.T + bias, target))  # (V, E)

    say(INTRODUCTION.format(words=NUM_WORDS, noise=NUM_NOISE))
    total, from_expected, from_softmax = torch.zeros_like(expected), {}, {}
    for draw in range(1, max_draws + 1):
        total += gradient(nce_loss(inputs, target, weights, bias, num_sampled=NUM_NOISE))[0]
        say.status(f"draw {draw:,} of {max_draws:,}")
        if draw in (1, 100, max_draws):
            from_expected[draw] = float((total / draw - expected).norm() / expected.norm())
            say(f"  {draw:6,}   {from_expected[draw]:19.2%}")
    say(NOISE_WORDS)
    for noise in (NUM_NOISE, 100, 10_000):
        difference = gradient(expected_nce_loss(inputs, target, weights, bias, noise))[0] - softmax
        from_softmax[noise] = float(difference.norm() / softmax.norm())
        say(f"  {noise:12,}   {from_softmax[noise]:19.2%}")
    return {"draws_from_full": from_expected, "full_from_softmax": from_softmax}


def expected_nce_loss(inputs: Tensor, targets: Tensor, weights: Tensor, bias: Tensor, noise: int) -> Tensor:
    """Return the expectation of `nce_loss`: word v occurs K q(v) times among the K noise words on average."""
    expected_counts = noise * log_uniform_probs(len(weights)).to(inputs)  # (V,), K q(v)
    logits = inputs @ weights.T + bias - expected_counts.log()  # (B, V)
    true_losses = F.softplus(-logits.gather(1, targets[:, None]))[:, 0]  # (B,)
    return (true_losses + F.softplus(logits) @ expected_counts).mean()
