"""Optimizers: AdamW with a weight decay and a learning-rate factor for each group of weights, and L-BFGS."""

import inspect
from collections import defaultdict

import torch
from torch import nn

from charlm.config import TrainConfig
from charlm.training.network import LanguageModel

BETAS = (0.5, 0.99)
"""Decay rates of AdamW's moments. The first is below the usual 0.9, because the averaged weights average the gradients
too. 1 x 256, Penn Treebank, 1.5 million characters: 0.9 reaches 1.190 nats per character, 0.5 reaches 1.177."""

DECODER_RATE = 2.5
"""Factor of the learning rate for the decoder's matrix, unless it is also the embedding. 1 x 256, Penn Treebank, 1.5
million characters: 1 reaches 1.201 nats per character, 2.5 reaches 1.190."""


class AdamW(torch.optim.AdamW):
    """PyTorch's AdamW without the decorators that import PyTorch's compiler.

    That import takes 2.5 seconds at the first update (measured), of the 40 seconds of a short training.
    """

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class LBFGS(torch.optim.LBFGS):
    """PyTorch's L-BFGS without the decorators that import PyTorch's compiler; see `AdamW`."""

    add_param_group = inspect.unwrap(torch.optim.LBFGS.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.LBFGS.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.LBFGS.step))


def make_optimizer(model: LanguageModel, config: TrainConfig) -> AdamW:
    """Return AdamW for a model.

    Weights with the same weight decay and the same learning-rate factor form a group. The item `rate` of a group is its
    learning-rate factor. Matrices have weight decay, vectors have none.
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
