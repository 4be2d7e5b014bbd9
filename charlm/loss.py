"""The losses that sequences are learnt with.

Shapes: B batch, T time steps, H hidden, V vocabulary; N = B * T.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from charlm.errors import TrainingError


def sequence_loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted mean of the cross-entropy over all steps of all sequences.

    Args:
        logits: Unnormalised log-probabilities, (B, T, V), floating point.
        targets: The true tokens, (B, T), int64.
        weights: How much each step counts, (B, T); 0 takes a step out of the mean. All count 1 if left out.

    Returns:
        The mean in nats a token, a scalar.

    Raises:
        TrainingError: If the weights sum to zero: the mean of nothing is undefined.

    Source:
        The sum of weighted losses over the sum of weights, as `tfa.seq2seq.sequence_loss` has it.
    """
    losses = F.cross_entropy(
        logits.flatten(0, -2), targets.flatten(), reduction="none" if weights is not None else "mean"
    )
    if weights is None:
        return losses
    total = weights.sum()
    if total == 0:
        raise TrainingError("sequence_loss: all weights are zero, the mean over no step is undefined")
    return torch.dot(losses, weights.flatten().to(losses.dtype)) / total


def sampled_softmax_loss(outputs: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, samples: int) -> Tensor:
    """Estimate the cross-entropy from some words instead of all, for vocabularies so large that the sum is costly.

    The target's logit is exact. The sum over the other words is estimated from `samples` draws that all steps
    share, each word weighted by one over the chance that it is among them. Ids must be by falling frequency: a word
    is drawn with the log-uniform distribution of its rank, so that the frequent ones are as good as always there.
    In use the whole softmax serves.

    Args:
        outputs: What the decoder is given, (N, H), floating point.
        targets: The true tokens, (N,), int64.
        weight: The decoder's matrix, (V, H).
        bias: The decoder's bias, (V,).
        samples: Draws, with replacement.

    Returns:
        The mean in nats a token, a scalar. It is a little too small on average, as the log of an estimate is.

    Source:
        Bengio and Senecal 2008; Jean et al., arXiv 1412.2007.
    """
    vocab_size = len(weight)
    ranks = torch.exp(torch.rand(samples, dtype=torch.float64) * math.log(vocab_size + 1)).long() - 1
    drawn = torch.unique(ranks.clamp_(0, vocab_size - 1))
    chances = torch.log1p(1 / (drawn.double() + 1)) / math.log(vocab_size + 1)
    log_presence = torch.log(-torch.expm1(samples * torch.log1p(-chances))).float()
    # One look-up for all: each has a gradient of the size of the whole matrix.
    ids = torch.cat([targets, drawn])
    rows, biases = F.embedding(ids, weight), bias[ids]
    steps = len(targets)
    true_logits = (outputs.float() * rows[:steps]).sum(dim=-1) + biases[:steps]
    logits = F.linear(outputs, rows[steps:], biases[steps:]).float() - log_presence
    logits = logits.masked_fill(targets[:, None] == drawn, -math.inf)
    return (torch.logsumexp(torch.cat([true_logits[:, None], logits], dim=1), dim=1) - true_logits).mean()
