import math

import pytest
import torch

from charlm.training.loss import sampled_softmax_loss, sequence_loss


def tensors(vocab_size: int, steps: int = 64, hidden: int = 8) -> tuple[torch.Tensor, ...]:
    return (
        torch.randn(steps, hidden),
        torch.randint(0, vocab_size, (steps,)),
        (0.3 * torch.randn(vocab_size, hidden)).requires_grad_(),
        (0.3 * torch.randn(vocab_size)).requires_grad_(),
    )


def full_loss(outputs: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return sequence_loss((outputs @ weight.T + bias)[None], targets[None])


def test_with_all_words_sampled_the_loss_is_exact() -> None:
    outputs, targets, weight, bias = tensors(30)
    estimate = sampled_softmax_loss(outputs, targets, weight, bias, samples=5000)
    torch.testing.assert_close(estimate, full_loss(outputs, targets, weight, bias), rtol=1e-4, atol=1e-4)
    estimate.backward()
    of_estimate = weight.grad.clone()
    weight.grad = None
    full_loss(outputs, targets, weight, bias).backward()
    torch.testing.assert_close(of_estimate, weight.grad, rtol=1e-3, atol=1e-4)


def test_the_estimated_sum_over_all_words_is_unbiased() -> None:
    outputs, targets, weight, bias = tensors(1000, steps=4)
    weight, bias = weight.detach(), bias.detach()
    logits = outputs @ weight.T + bias
    truth = logits.exp().sum(dim=1)
    sums = torch.zeros(4)
    draws = 400
    for _ in range(draws):
        for step in range(4):
            one = slice(step, step + 1)
            loss = sampled_softmax_loss(outputs[one], targets[one], weight, bias, samples=300)
            sums[step] += torch.exp(loss + logits[step, targets[step]])
    torch.testing.assert_close(sums / draws, truth, rtol=0.1, atol=0)


def test_words_that_are_only_targets_of_other_time_steps_are_no_part_of_the_sum() -> None:
    """All logits are 0. Of 10 words, the 4 most frequent ones are exact, and 4 of the other 6 are drawn."""
    outputs, _, weight, bias = tensors(10, steps=6)
    weight, bias = weight.detach(), torch.zeros(10)
    outputs = torch.zeros_like(outputs)  # all logits are 0
    targets = torch.tensor([0, 4, 5, 6, 8, 9])
    losses = {
        round(math.exp(float(sampled_softmax_loss(outputs[[step]], targets[[step]], weight, bias, samples=8))), 4)
        for step in range(6)
        for _ in range(9)
    }
    frequent, not_drawn, drawn = 4 + 4 * 1.5, 4 + 1 + 4 * 1.5, 4 + 1 + 3 * 1.5
    assert losses == {frequent, not_drawn, drawn}
    together = float(sampled_softmax_loss(outputs, targets, weight, bias, samples=8))
    assert math.log(9.5) <= together <= math.log(11)


def test_estimates_differ_and_are_near_the_exact_loss() -> None:
    parts = tensors(20_000)
    full = float(full_loss(*parts).detach())
    estimates = [float(sampled_softmax_loss(*parts, samples=4000).detach()) for _ in range(5)]
    assert len(set(estimates)) == 5
    assert estimates == pytest.approx([full] * 5, abs=0.25)
    assert all(math.isfinite(estimate) for estimate in estimates)
