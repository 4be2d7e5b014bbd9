"""The loss that sequences are learnt with."""

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
