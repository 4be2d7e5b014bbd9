"""Tests of the losses against sums written out."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from charlm.errors import TrainingError
from charlm.training.loss import log_uniform_probs, log_uniform_sample, nce_loss, sequence_loss

V, E, B = 6, 3, 4

MIXED = [[0.2, 0.7], [0.6, 0.2], [0.2, 0.9]]


@pytest.mark.parametrize(
    ("logits", "nats"),
    [
        (MIXED, 0.596759),
        ([[0.3, 0.7]] * 3, 0.513015),
        ([[0.1, 0.9]] * 3, 0.371101),
        ([[1.0, 0.0]] * 3, 1.31326),
        ([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], 0.646595),
    ],
)
@pytest.mark.parametrize("weights", [None, torch.ones(1, 3)], ids=["no weights", "all weights 1"])
def test_the_loss_has_known_values(logits: list[list[float]], nats: float, weights: Tensor | None) -> None:
    loss = sequence_loss(torch.tensor([logits]), torch.tensor([[1, 1, 1]]), weights)
    assert float(loss) == pytest.approx(nats, abs=5e-6)


def test_a_time_step_with_weight_zero_is_excluded_from_the_mean() -> None:
    logits, targets = torch.tensor([MIXED]), torch.tensor([[1, 1, 1]])
    loss = sequence_loss(logits, targets, torch.tensor([[1.0, 0.0, 1.0]]))
    torch.testing.assert_close(loss, sequence_loss(logits[:, [0, 2]], targets[:, :2]))


def test_the_weighted_loss_is_the_weighted_mean() -> None:
    logits, targets = torch.randn(2, 3, 5), torch.randint(5, (2, 3))
    weights = torch.tensor([[1.0, 2.0, 0.0], [0.5, 0.0, 4.0]])
    costs = -logits.log_softmax(dim=-1).gather(2, targets[..., None])[..., 0]
    torch.testing.assert_close(sequence_loss(logits, targets, weights), (costs * weights).sum() / weights.sum())


def test_all_weights_zero_is_an_error() -> None:
    with pytest.raises(TrainingError, match="all weights are zero"):
        sequence_loss(torch.tensor([MIXED]), torch.tensor([[1, 1, 1]]), torch.zeros(1, 3))


def full_nce(inputs: Tensor, targets: Tensor, weights: Tensor, bias: Tensor, noise: int) -> Tensor:
    """Return the loss as a sum over all words, by its definition."""
    total = torch.zeros(())
    for x, target in zip(inputs, targets, strict=True):
        for v in range(V):
            q = math.log((v + 2) / (v + 1)) / math.log(V + 1)
            true = torch.sigmoid(x @ weights[v] + bias[v] - math.log(noise * q))
            total = total - (v == target) * true.log() - noise * q * (1 - true).log()
    return total / len(inputs)


@pytest.fixture
def parts() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.randn(B, E), torch.randint(V, (B,)), torch.randn(V, E, requires_grad=True), torch.randn(V)


def gradient(loss: Tensor, weights: Tensor) -> Tensor:
    return torch.autograd.grad(loss, weights)[0]


def test_the_expected_gradient_of_nce_is_that_of_the_full_sum(parts: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    """The expectation is computed exactly, over every pair of noise words with its probability."""
    weights = parts[2]
    probs = log_uniform_probs(V).float()
    expected = torch.zeros(V, E)
    for first in range(V):
        for second in range(V):
            loss = nce_loss(*parts, num_sampled=2, noise=torch.tensor([first, second]))
            expected += probs[first] * probs[second] * gradient(loss, weights)
    torch.testing.assert_close(expected, gradient(full_nce(*parts, 2), weights))


def test_the_mean_of_sampled_nce_gradients_is_near_that_of_the_full_sum(
    parts: tuple[Tensor, Tensor, Tensor, Tensor],
) -> None:
    weights = parts[2]
    mean = sum(gradient(nce_loss(*parts, num_sampled=8), weights) for _ in range(1000)) / 1000
    full = gradient(full_nce(*parts, 8), weights)
    assert float((mean - full).norm() / full.norm()) < 0.05


def test_with_many_noise_words_the_gradient_is_that_of_the_softmax() -> None:
    inputs, weights = torch.randn(1, E), torch.randn(V, E, requires_grad=True)
    bias = -(inputs @ weights.T).logsumexp(dim=-1).detach().expand(V)
    target = torch.tensor([2])
    softmax = gradient(F.cross_entropy(inputs @ weights.T + bias, target), weights)
    near = gradient(full_nce(inputs, target, weights, bias, 100_000), weights)
    assert float((near - softmax).norm() / softmax.norm()) < 1e-3


def test_samples_have_the_log_uniform_distribution() -> None:
    probs = log_uniform_probs(50)
    assert float(probs.sum()) == pytest.approx(1)
    assert bool((probs.diff() < 0).all())
    drawn = log_uniform_sample(200_000, 50)
    assert set(drawn.tolist()) <= set(range(50))
    shares = torch.bincount(drawn, minlength=50) / len(drawn)
    assert float((shares - probs).abs().max()) < 5 * math.sqrt(float(probs[0]) / 200_000)
