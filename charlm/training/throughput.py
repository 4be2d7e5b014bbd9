"""Times updates on this machine: what a training can do in its minutes, and in which arithmetic.

Some processors multiply bfloat16 matrices twice as fast, others cannot at all. Weights, optimizer, loss and
validation stay in float32; only the products within the network change.

A training that ends by the clock takes the arithmetic and the threads that are timed as the fastest. One that ends
after so many steps or epochs is the same each time, to the bit, so no clock may decide in it: there both follow from
the model's width and from what the processor or the GPU can do.
"""

import functools
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from charlm.config import ModelConfig, Precision, TrainConfig
from charlm.engine.checkpoint import num_parameters
from charlm.errors import ConfigError
from charlm.training.distributed import Workers
from charlm.training.network import LanguageModel
from charlm.training.optimizer import make_optimizer

WORTH_IT = 1.1
"""How much faster bf16 must be to be taken: less is within what timings differ by."""

WIDE_FOR_BF16, UNITS_A_THREAD = 256, 64
"""Where no clock decides: bf16 from so many units on, and a thread for each so many; a smaller model is slower with
them (measured from 1 x 8 to 1 x 512 with 16 x 64 and 4 x 16 tokens, on two cores)."""

TIMED_STEPS, TIMED_SECONDS = 3, 0.4
"""Updates timed after one that is not, and the time after which no other is begun."""

BYTES_A_PARAMETER = 5 * 4
"""A weight, its gradient, its two moments and its average, each a float32."""


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """How fast a model of some shape learns here.

    Attributes:
        tokens_per_second: Of all processes together.
        precision: The arithmetic that this needs.
        threads: The threads that this needs, of each process.
    """

    tokens_per_second: float
    precision: Precision
    threads: int


@dataclass(frozen=True)
class Machine:
    """Where a training runs, as its plan sees it: what it says is the same in all processes of the training.

    Attributes:
        device: Where to compute.
        workers: The processes.
        started: Time at which the budget began to run, in seconds by `clock`; by default the present time.
        threads: Threads to compute with at most, of each process.
        fewer: Whether fewer may be taken, where that is faster: with small matrices, or on cores that others use.
        clock: Function that returns the time in seconds.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: Workers = field(default_factory=Workers)
    started: float = math.nan
    threads: int = field(default_factory=torch.get_num_threads)
    fewer: bool = True
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if math.isnan(self.started):
            object.__setattr__(self, "started", self.clock())

    def measure_throughput(self, model_config: ModelConfig, config: TrainConfig) -> Throughput:
        """Time updates with the very sizes of a training, in some tenths of a second; random state stays as it is.

        Args:
            model_config: The model's shape.
            config: For the sizes of a batch, the arithmetic asked for, and whether the training ends by the clock.

        Raises:
            ConfigError: If this machine cannot hold the model, or has not the arithmetic asked for.
        """
        check_memory(model_config)
        if config.precision == "bf16" and not learns_in_bf16(self.device):
            raise ConfigError("--precision bf16: this processor does not learn in it: leave it out")

        def seconds(precision: Precision, threads: int) -> float:
            torch.set_num_threads(threads)
            spent = _seconds_per_update(model, replace(config, precision=precision))
            return self.workers.all_reduce_max([spent], self.device)[0]

        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            model = LanguageModel(model_config).to(self.device)
            if config.minutes is None:
                precision, threads = self._settled(model_config, config)
                best = seconds(precision, threads)
            else:
                precision, threads, best = self._fastest(config, seconds)
        torch.set_num_threads(threads)
        tokens = config.batch_size * config.seq_len * self.workers.count
        return Throughput(tokens_per_second=tokens / best, precision=precision, threads=threads)

    def _settled(self, model_config: ModelConfig, config: TrainConfig) -> tuple[Precision, int]:
        """The arithmetic and the threads of a training that repeats."""
        width, precision = model_config.hidden_size, config.precision
        if precision == "auto":
            precision = "bf16" if width >= WIDE_FOR_BF16 and _has_fast_bf16(self.device) else "fp32"
        return precision, min(self.threads, max(1, width // UNITS_A_THREAD)) if self.fewer else self.threads

    def _fastest(self, config: TrainConfig, seconds: Callable[[Precision, int], float]) -> tuple[Precision, int, float]:
        """The arithmetic and the threads with the fewest seconds an update, and those seconds."""
        precision: Precision = "fp32" if config.precision == "auto" else config.precision
        threads, best = self.threads, seconds(precision, self.threads)
        worth_timing = config.precision == "auto" and learns_in_bf16(self.device)
        if worth_timing and best > WORTH_IT * (bf16 := seconds("bf16", threads)):
            precision, best = "bf16", bf16
        while self.fewer and threads > 1 and best > WORTH_IT * (fewer := seconds(precision, threads // 2)):
            threads, best = threads // 2, fewer
        return precision, threads, best

    def seconds_used(self) -> float:
        """The part of the budget that is spent already."""
        return self.workers.all_reduce_max([self.clock() - self.started], self.device)[0]


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


def _has_fast_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 by instructions of its own.

    With AVX-512's alone an update of 16 x 64 tokens and 256 units or more takes 0.6 to 0.8 of float32's time, a gru's
    0.7 to 1 (measured).
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # PyTorch before 2.13 has none
    return device.type == "cpu" and any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16"))


@functools.cache
def learns_in_bf16(device: torch.device) -> bool:
    """Whether models can learn in bfloat16 on a device.

    On a CPU without AVX-512 PyTorch's LSTM fails in it, and its GRU takes 18 times as long as in float32 (measured).
    """
    if device.type != "cpu":
        return True
    try:
        with torch.random.fork_rng([]), torch.enable_grad(), torch.autocast("cpu", torch.bfloat16):
            nn.LSTM(1, 1)(torch.zeros(1, 1, 1))[0].sum().backward()
    except RuntimeError:
        return False
    return True


def mixed_precision(precision: Precision, device: torch.device) -> torch.autocast:
    """The context in which a training's forward pass runs; float32 where there is no bfloat16.

    A run that began in bfloat16 may go on elsewhere.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16" and learns_in_bf16(device))


def _seconds_per_update(model: LanguageModel, config: TrainConfig) -> float:
    """The shortest time of some updates, forward, backward and AdamW."""
    device = model.decoder.bias.device
    ids = torch.zeros((config.batch_size, config.seq_len), dtype=torch.int64, device=device)
    state, samples = model.core.zero_state(config.batch_size), config.softmax_samples or 0
    optimizer = make_optimizer(model, config)

    def update() -> None:
        optimizer.zero_grad()
        with mixed_precision(config.precision, device):
            loss, _ = model.loss(ids, ids, state, samples=samples)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()
        float(loss.detach())  # a GPU is waited for

    if device.type != "cpu":
        update()  # a GPU's libraries take seconds to start
    times: list[float] = []
    while len(times) <= TIMED_STEPS and sum(times) < TIMED_SECONDS:
        began = time.perf_counter()
        update()
        times.append(time.perf_counter() - began)
    return min(times[1:] or times)
