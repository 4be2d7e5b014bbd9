"""The losses: of sequences, and of words against drawn ones.

Shapes: B batch, T time steps, N = B * T, E embedding, H hidden, V vocabulary, K noise words.
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
    drawn = torch.unique(log_uniform_sample(samples, vocab_size))
    chances = log_uniform_probs(vocab_size)[drawn]
    log_presence = torch.log(-torch.expm1(samples * torch.log1p(-chances))).float().to(targets.device)
    drawn = drawn.to(targets.device)
    # One look-up for all: each has a gradient of the size of the whole matrix.
    ids = torch.cat([targets, drawn])
    rows, biases = F.embedding(ids, weight), bias[ids]
    steps = len(targets)
    true_logits = (outputs.float() * rows[:steps]).sum(dim=-1) + biases[:steps]
    logits = F.linear(outputs, rows[steps:], biases[steps:]).float() - log_presence
    logits = logits.masked_fill(targets[:, None] == drawn, -math.inf)
    return (torch.logsumexp(torch.cat([true_logits[:, None], logits], dim=1), dim=1) - true_logits).mean()


def nce_loss(
    inputs: Tensor, targets: Tensor, weights: Tensor, bias: Tensor, *, num_sampled: int, noise: Tensor | None = None
) -> Tensor:
    """Noise-contrastive estimation: tell the true word from words drawn by frequency, without a sum over all V.

    A word v has the score s(v) = inputs . weights[v] + bias[v] and is drawn as noise with the probability q(v). That
    it is true and not one of K noise words has the probability sigmoid(s(v) - ln(K q(v))), and so an example costs
    -ln sigmoid(s(target) - ln(K q(target))) - sum over the noise of ln(1 - sigmoid(s(v) - ln(K q(v)))). Where
    that is least, s(v) is the log-probability of v, which sums to 1 of itself.

    Args:
        inputs: What the words are predicted from, (B, E), floating point.
        targets: The true words, (B,), int64, the most frequent ones first.
        weights: The words' output vectors, (V, E).
        bias: The words' biases, (V,).
        num_sampled: K, the noise words, drawn anew at each call and shared by all examples.
        noise: The noise words, (K,), int64; drawn by `log_uniform_sample` if left out.

    Returns:
        The mean over the examples, in nats, a scalar.

    Source:
        Gutmann and Hyvarinen 2010; for language models Mnih and Teh, arXiv 1206.6426. Drawn with replacement, so that
        the gradient's expectation is that of the sum over all words, K q(v) times each.
    """
    vocab_size = len(weights)
    log_expected = log_uniform_probs(vocab_size).to(inputs).log() + math.log(num_sampled)
    noise = log_uniform_sample(num_sampled, vocab_size).to(targets.device) if noise is None else noise
    true = (inputs * F.embedding(targets, weights)).sum(dim=-1) + bias[targets] - log_expected[targets]
    false = inputs @ F.embedding(noise, weights).T + bias[noise] - log_expected[noise]
    return (F.softplus(-true) + F.softplus(false).sum(dim=-1)).mean()


def log_uniform_probs(vocab_size: int) -> Tensor:
    """The noise that `nce_loss` draws: q(v) = ln((v + 2) / (v + 1)) / ln(V + 1), (V,), float64.

    It falls like 1 / v, as the frequencies of words do by Zipf's law if the most frequent come first.
    """
    return torch.arange(1, vocab_size + 2, dtype=torch.float64).log().diff() / math.log(vocab_size + 1)


def log_uniform_sample(count: int, vocab_size: int) -> Tensor:
    """Draw words with `log_uniform_probs`, with replacement, (count,), int64.

    With u uniform on [0, 1), exp(u ln(V + 1)) - 1 is below v with the chance ln(v + 1) / ln(V + 1): round it down.
    """
    uniform = torch.rand(count, dtype=torch.float64)
    drawn = (uniform * math.log(vocab_size + 1)).exp().long() - 1
    return drawn.clamp_(max=vocab_size - 1)  # u next to 1 may round up
