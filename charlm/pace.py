"""Times updates on this machine: what a training can do in its minutes, and in which arithmetic.

Some processors multiply bfloat16 matrices twice as fast, others cannot at all. Weights, optimizer, loss and
validation stay in float32; only the products within the network change.
"""

import os
import time
from dataclasses import dataclass, replace

import torch
from torch import nn

from charlm.config import ModelConfig, Precision, TrainConfig
from charlm.errors import ConfigError
from charlm.model import LanguageModel
from charlm.parallel import Workers
from charlm.plan import num_parameters

WORTH_IT = 1.1
"""How much faster bf16 must be to be taken: less is within what timings differ by."""

TIMED_STEPS, TIMED_SECONDS = 3, 0.4
"""Updates timed after one that is not, and the time after which no other is begun."""


BYTES_A_PARAMETER = 5 * 4
"""A weight, its gradient, its two moments and its average, each a float32."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a model of some shape learns here.

    Attributes:
        tokens_per_second: Of all processes together.
        precision: The arithmetic that this needs.
    """

    tokens_per_second: float
    precision: Precision


@dataclass(frozen=True)
class Machine:
    """Where a training runs, as its plan sees it: what it says is the same in all processes of the training.

    Attributes:
        device: Where to compute.
        workers: The processes.
        started: When the budget began to run, by `time.monotonic`.
    """

    device: torch.device
    workers: Workers
    started: float

    def pace(self, model_config: ModelConfig, config: TrainConfig) -> Pace:
        """Time updates with the very sizes of a training, in some tenths of a second; random state stays as it is.

        Args:
            model_config: The model's shape.
            config: For the sizes of a batch, and the arithmetic; auto times both and takes the faster.

        Raises:
            ConfigError: If this machine cannot hold the model.
        """
        check_memory(model_config)
        with torch.random.fork_rng():
            model = _any_model(model_config, self.device)
            asked: tuple[Precision, ...] = ("fp32", "bf16") if config.precision == "auto" else (config.precision,)
            seconds = [_seconds_per_update(model, replace(config, precision=precision)) for precision in asked]
        fp32, *bf16 = self.workers.greatest(seconds, self.device)
        faster = bool(bf16) and fp32 / bf16[0] > WORTH_IT
        tokens = config.batch_size * config.seq_len * self.workers.count
        return Pace(tokens_per_second=tokens / (bf16[0] if faster else fp32), precision=asked[faster])

    def seconds_used(self) -> float:
        """The part of the budget that is spent already."""
        return self.workers.greatest([time.monotonic() - self.started], self.device)[0]


def check_memory(config: ModelConfig) -> None:
    """Refuse a model that this machine cannot hold, rather than be killed for it.

    Raises:
        ConfigError: If it needs more than the machine has.
    """
    parameters = num_parameters(config)
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if parameters * BYTES_A_PARAMETER > memory:
        raise ConfigError(
            f"a model of {parameters:,} parameters needs {parameters * BYTES_A_PARAMETER / 2**30:,.0f} GiB to learn, "
            f"and this machine has {memory / 2**30:,.0f}: give a smaller --hidden or fewer --layers"
        )


def mixed_precision(precision: Precision, device: torch.device) -> torch.autocast:
    """The context in which a training's forward pass runs."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def _any_model(config: ModelConfig, device: torch.device) -> LanguageModel:
    """A model of a shape with weights that are drawn in no time: what they are makes no difference to the clock."""
    with torch.device("meta"):
        model = LanguageModel(config)
    model = model.to_empty(device=device)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.02)
    return model


def _seconds_per_update(model: LanguageModel, config: TrainConfig) -> float:
    """The shortest time of some updates, forward, backward and AdamW."""
    device = model.decoder.bias.device
    ids = torch.zeros((config.batch_size, config.seq_len), dtype=torch.int64, device=device)
    state, samples = model.core.zero_state(config.batch_size), config.softmax_samples or 0
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
    times: list[float] = []
    while len(times) <= TIMED_STEPS and sum(times) < TIMED_SECONDS:
        began = time.perf_counter()
        optimizer.zero_grad()
        with mixed_precision(config.precision, device):
            loss, _ = model.loss(ids, ids, state, samples=samples)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()
        float(loss.detach())  # a GPU is waited for
        times.append(time.perf_counter() - began)
    return min(times[1:] or times)
