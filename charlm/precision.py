"""Chooses the arithmetic of training: some processors multiply bfloat16 matrices twice as fast, others cannot at all.

Weights, optimizer, loss and validation stay in float32; only the products within the network change.
"""

import time

import torch

from charlm.config import Precision, TrainConfig
from charlm.model import LanguageModel
from charlm.parallel import Workers

WORTH_IT = 1.1
"""How much faster bf16 must be to be taken: less is within what timings differ by."""

TIMED_STEPS = 3
"""Forward and backward passes timed, after one that is not."""


def mixed_precision(precision: Precision, device: torch.device) -> torch.autocast:
    """The context in which a training's forward pass runs."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def faster_precision(model: LanguageModel, config: TrainConfig, workers: Workers) -> Precision:
    """Time both on this machine with the very sizes of a training, which takes some tenths of a second.

    Random state and weights stay as they are.

    Args:
        model: The network to be trained.
        config: For the sizes of a batch.
        workers: The processes of the training, which all take the same.
    """
    with torch.random.fork_rng():
        seconds = {precision: _seconds_per_step(model, config, precision) for precision in ("fp32", "bf16")}
    model.zero_grad()
    device = next(model.parameters()).device
    gain = workers.greatest([seconds["fp32"] / seconds["bf16"]], device)[0]
    return "bf16" if gain > WORTH_IT else "fp32"


def _seconds_per_step(model: LanguageModel, config: TrainConfig, precision: Precision) -> float:
    device = next(model.parameters()).device
    ids = torch.zeros((config.batch_size, config.seq_len), dtype=torch.int64, device=device)
    state, samples = model.core.zero_state(config.batch_size), config.softmax_samples or 0
    times = []
    for _ in range(1 + TIMED_STEPS):
        began = time.perf_counter()
        with mixed_precision(precision, device):
            loss, _ = model.loss(ids, ids, state, samples=samples)
        loss.backward()  # type: ignore[no-untyped-call]
        float(loss.detach())  # a GPU is waited for
        times.append(time.perf_counter() - began)
    return min(times[1:])
