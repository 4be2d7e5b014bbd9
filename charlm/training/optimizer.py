"""How the weights move: AdamW, with a decay and a share of the learning rate for each weight."""

import inspect
from collections import defaultdict

import torch
from torch import nn

from charlm.config import TrainConfig
from charlm.training.network import LanguageModel

BETAS = (0.5, 0.99)
"""AdamW's: the weights are averaged, so that there is no need to average many gradients (measured: docs/recipe.md)."""

DECODER_RATE = 2.5
"""What the decoder's matrix takes of the learning rate, unless it is the embedding's too (measured: docs/recipe.md)."""


class AdamW(torch.optim.AdamW):
    """PyTorch's, as it is without the wrappers that import PyTorch's compiler.

    That import takes two and a half seconds at the first update (measured), of the forty that a short training has.
    """

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def make_optimizer(model: LanguageModel, config: TrainConfig) -> AdamW:
    """AdamW for a model, in groups of weights with the same decay and the same `rate`, which multiplies the training's.

    Matrices decay, vectors don't.
    """
    own_decoder = None if model.config.tie_weights else model.decoder.weight
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for weight in model.parameters():
        decay = config.weight_decay if weight.ndim > 1 else 0.0
        groups[decay, DECODER_RATE if weight is own_decoder else 1.0].append(weight)
    return AdamW(
        [{"params": weights, "weight_decay": decay, "rate": rate} for (decay, rate), weights in groups.items()],
        betas=BETAS,
        fused=True,
    )
