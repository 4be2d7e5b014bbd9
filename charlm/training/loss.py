"""Loss functions: cross-entropy of sequences, and estimates of it from sampled words.

Shapes: B batch, T time steps, N = B * T, E embedding, H hidden, V vocabulary, K sampled words.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from charlm.errors import TrainingError


def sequence_loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the weighted mean of the cross-entropy over all time steps of all sequences.

    Args:
        logits: Unnormalised log-probabilities, (B, T, V), floating point.
        targets: Correct tokens, (B, T), int64.
        weights: Weight of each time step, (B, T); 0 excludes the step from the mean. All are 1 by default.

    Returns:
        The mean in nats per token, a scalar.

    Raises:
        TrainingError: If all weights are 0: the mean is undefined.

    Source:
        The weighted losses divided by the sum of the weights, as in `tfa.seq2seq.sequence_loss`.
    """
    losses = F.cross_entropy(
        logits.flatten(0, -2), targets.flatten(), reduction="none" if weights is not None else "mean"
    )
    if weights is None:
        return losses
    total = weights.sum()
    if total == 0:
        raise TrainingError("sequence_loss: the mean is undefined because all weights are zero")
    return torch.dot(losses, weights.flatten().to(losses.dtype)) / total


def sampled_softmax_loss(outputs: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, samples: int) -> Tensor:
    """Estimate the cross-entropy from a part of the words, which is faster for large vocabularies.

    The terms of the targets and of the most frequent words are exact. The sum over the other words is estimated from
    some of them, which are drawn uniformly and without replacement, and which all time steps share. This is for
    training only; the trained model uses the exact softmax.

    Args:
        outputs: Inputs of the decoder, (N, H), floating point.
        targets: Correct tokens, (N,), int64; ids are in order of falling frequency.
        weight: Matrix of the decoder, (V, H).
        bias: Bias of the decoder, (V,).
        samples: K, number of words in the sum: the K / 2 most frequent ones, and as many drawn from the others.

    Returns:
        The mean in nats per token, a scalar. The sum over the words is unbiased. Its logarithm, and with it the loss,
        is slightly too small on average.

    Source:
        Botev, Zheng and Barber, Complementary sum sampling for likelihood approximation in large scale classification,
        AISTATS 2017.
    """
    vocab_size, device = len(weight), targets.device
    samples = min(samples, vocab_size)
    frequent = samples // 2
    drawn = frequent + torch.randperm(vocab_size - frequent)[: samples - frequent].to(device)
    column = torch.full((vocab_size,), -1, device=device)
    column[:frequent] = torch.arange(frequent, device=device)
    column[drawn] = torch.arange(frequent, samples, device=device)
    is_target = torch.zeros(vocab_size, dtype=torch.bool, device=device)
    is_target[targets] = True
    missing = torch.nonzero(is_target & (column < 0)).flatten()
    column[missing] = torch.arange(samples, samples + len(missing), device=device)
    ids = torch.cat([torch.arange(frequent, device=device), drawn, missing])
    # A drawn word stands for several. The target itself is exact, and words that are only targets of other time steps
    # are no part of the sum.
    log_times = torch.zeros(len(ids), device=device)
    log_times[frequent:samples] = math.log((vocab_size - frequent) / (samples - frequent))
    log_times[samples:] = -math.inf
    places = column[targets]
    added = log_times.repeat(len(targets), 1)
    added[torch.arange(len(targets), device=device), places] = 0
    logits = F.linear(outputs, F.embedding(ids, weight), bias[ids]).float() + added
    return F.cross_entropy(logits, places)


def nce_loss(
    inputs: Tensor, targets: Tensor, weights: Tensor, bias: Tensor, *, num_sampled: int, noise: Tensor | None = None
) -> Tensor:
    """Return the loss of noise-contrastive estimation: classify words as the target or as noise.

    It needs no sum over the vocabulary. Word v has the score s(v) = inputs . weights[v] + bias[v] and occurs as noise
    with probability q(v). It is classified as the target with probability sigmoid(s(v) - ln(K q(v))). The loss of an
    example is -ln sigmoid(s(target) - ln(K q(target))), minus the sum of ln(1 - sigmoid(s(v) - ln(K q(v)))) over its K
    noise words. At the minimum, s(v) is the normalised log-probability of v.

    Args:
        inputs: Inputs from which the words are predicted, (B, E), floating point.
        targets: Correct words, (B,), int64; ids are in order of falling frequency.
        weights: Output vectors of the words, (V, E).
        bias: Biases of the words, (V,).
        num_sampled: K, number of noise words; all examples share them.
        noise: The noise words, (K,), int64; drawn by `log_uniform_sample` by default.

    Returns:
        The mean over the examples in nats, a scalar.

    Source:
        Gutmann and Hyvarinen 2010; for language models Mnih and Teh, arXiv 1206.6426. Noise is drawn with replacement,
        so that the expected gradient is that of the sum over all words, each weighted by K q(v).
    """
    vocab_size = len(weights)
    log_expected = log_uniform_probs(vocab_size).to(inputs).log() + math.log(num_sampled)
    noise = log_uniform_sample(num_sampled, vocab_size).to(targets.device) if noise is None else noise
    true = (inputs * F.embedding(targets, weights)).sum(dim=-1) + bias[targets] - log_expected[targets]
    false = inputs @ F.embedding(noise, weights).T + bias[noise] - log_expected[noise]
    return (F.softplus(-true) + F.softplus(false).sum(dim=-1)).mean()


def log_uniform_probs(vocab_size: int) -> Tensor:
    """Return the log-uniform distribution q(v) = ln((v + 2) / (v + 1)) / ln(V + 1), (V,), float64.

    It falls like 1 / v, as word frequencies do by Zipf's law if ids are in order of falling frequency.
    """
    return torch.arange(1, vocab_size + 2, dtype=torch.float64).log().diff() / math.log(vocab_size + 1)


def log_uniform_sample(count: int, vocab_size: int) -> Tensor:
    """Draw words from `log_uniform_probs`, with replacement, (count,), int64.

    If u is uniform on [0, 1), the value exp(u ln(V + 1)) - 1 is below v + 1 with probability ln(v + 2) / ln(V + 1), so
    that its integer part has the wanted distribution.
    """
    uniform = torch.rand(count, dtype=torch.float64)
    drawn = (uniform * math.log(vocab_size + 1)).exp().long() - 1
    return drawn.clamp_(max=vocab_size - 1)  # rounding may give V if u is close to 1
