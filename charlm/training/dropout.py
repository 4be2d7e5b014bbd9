"""Dropout with one mask per sequence, and dropout of recurrent weights.

Shapes: B batch, T time steps, H hidden.
"""

import torch
from torch import Tensor, nn


class LockedDropout(nn.Module):
    """Dropout with the same mask at all time steps of a sequence.

    Args:
        share: Share of the components that is dropped during training.

    Source:
        Gal and Ghahramani, arXiv 1512.05287; used by AWD-LSTM, arXiv 1708.02182.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, inputs: Tensor) -> Tensor:
        """Drop components of the inputs, (B, T, H), and scale up the others, so that the mean stays the same."""
        if not self.training or self.share == 0:
            return inputs
        mask = inputs.new_empty((len(inputs), 1, inputs.shape[-1])).bernoulli_(1 - self.share)
        return inputs * mask.div_(1 - self.share)


def drop_recurrent_weights(layer: nn.Module, share: float) -> dict[str, Tensor]:
    """Return the recurrent weights of a layer, by name, with a share of them set to zero (DropConnect).

    With these weights, `torch.func.functional_call` runs the layer in PyTorch's fast implementation.

    Source:
        Wan et al. 2013; on recurrent weights as in AWD-LSTM, arXiv 1708.02182.
    """
    return {name: weight * fast_mask(weight, share) for name, weight in layer.named_parameters() if "weight_hh" in name}


def fast_mask(like: Tensor, share: float) -> Tensor:
    """Return a mask for inverted dropout of a large matrix.

    On a CPU, one random byte decides on each entry: drawing a float for each entry would take half as long as an
    update.

    Args:
        like: Tensor with the wanted shape, dtype and device.
        share: Share of zeros. On a CPU it is rounded to a multiple of 1/256.
    """
    threshold = min(255, round(256 * share))
    kept_share = 1 - threshold / 256
    if like.device.type != "cpu":
        return torch.empty_like(like).bernoulli_(kept_share).div_(kept_share)
    words = torch.empty(-(-like.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.uint8)[: like.numel()].view(like.shape) >= threshold
    return kept.to(like.dtype).div_(kept_share)
