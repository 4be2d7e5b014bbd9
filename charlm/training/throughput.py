"""Measurement of training throughput on this machine, and the choice of number format and threads.

Some processors multiply matrices of bfloat16 twice as fast as matrices of float32; others do not support bfloat16. The
choice affects only the matrix products within the network. Weights, optimizer, loss and validation use float32.

A training that is limited by time uses the format and the number of threads that are measured to be fastest. A training
of a given number of updates or epochs must repeat bit for bit, so that no measurement may influence it. Its format and
its number of threads follow from the width of the model and from the capabilities of the processor or GPU.
"""

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from charlm.config import ModelConfig, Precision, TrainConfig
from charlm.errors import ConfigError
from charlm.training.distributed import Workers
from charlm.training.memory_check import check_memory
from charlm.training.network import LanguageModel
from charlm.training.optimizer import make_optimizer
from charlm.training.recipe import MIN_BF16_UNITS, MIN_SPEEDUP, UNITS_PER_THREAD

MAX_TIMED_UPDATES = 3
"""Maximum number of updates that are timed, after one that is not counted."""

MAX_TIMED_SECONDS = 0.4
"""Duration in seconds after which no further update is timed."""


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Speed of training a model on this machine.

    Attributes:
        tokens_per_second: Speed of all processes together.
        precision: Number format that reaches this speed.
        threads: Number of threads per process that reaches this speed.
    """

    tokens_per_second: float
    precision: Precision
    threads: int


@dataclass(frozen=True)
class Machine:
    """Device, processes and clock of a training. Measurements have the same results in all processes.

    Attributes:
        device: Device to train on.
        workers: Processes that train together.
        started: Time at which the training began, for its time limit, in seconds of `clock`; by default the current
            time.
        threads: Maximum number of threads per process.
        may_use_fewer_threads: Whether to use fewer threads if that is faster, for instance with small matrices or on
            busy processor cores.
        clock: Function that returns the time in seconds.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: Workers = field(default_factory=Workers)
    started: float = math.nan
    threads: int = field(default_factory=torch.get_num_threads)
    may_use_fewer_threads: bool = True
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if math.isnan(self.started):
            object.__setattr__(self, "started", self.clock())

    def measure_throughput(self, model_config: ModelConfig, config: TrainConfig) -> Throughput:
        """Time updates of a model, and choose number format and threads.

        This takes some tenths of a second. It does not change the state of the random generators. It sets PyTorch's
        number of threads to the chosen one.

        Args:
            model_config: Shape of the model.
            config: Batch size, sequence length, requested number format, and whether time limits the training.

        Raises:
            ConfigError: If the model does not fit into memory, or the requested number format is not supported.
        """
        check_memory(model_config, config, self.device)
        if config.precision == "bf16" and not can_train_in_bf16(self.device):
            raise ConfigError("precision bf16: not supported by this processor; use auto or fp32", fields=["precision"])

        def seconds_per_update(precision: Precision, threads: int) -> float:
            torch.set_num_threads(threads)
            seconds = _seconds_per_update(model, replace(config, precision=precision))
            return self.workers.all_reduce_max([seconds], self.device)[0]

        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            model = LanguageModel(model_config).to(self.device)
            if config.minutes is None:
                precision, threads = self._choose_by_width(model_config, config)
                seconds = seconds_per_update(precision, threads)
            else:
                precision, threads, seconds = self._choose_by_speed(config, seconds_per_update)
        torch.set_num_threads(threads)
        tokens = config.batch_size * config.seq_len * self.workers.count
        return Throughput(tokens_per_second=tokens / seconds, precision=precision, threads=threads)

    def _choose_by_width(self, model_config: ModelConfig, config: TrainConfig) -> tuple[Precision, int]:
        """Return the number format and the number of threads that follow from the width of the model."""
        width, precision = model_config.hidden_size, config.precision
        if precision == "auto":
            precision = "bf16" if width >= MIN_BF16_UNITS and _has_fast_bf16(self.device) else "fp32"
        threads = self.threads
        if self.may_use_fewer_threads:
            threads = min(threads, max(1, width // UNITS_PER_THREAD))
        return precision, threads

    def _choose_by_speed(
        self, config: TrainConfig, seconds_per_update: Callable[[Precision, int], float]
    ) -> tuple[Precision, int, float]:
        """Return the fastest number format and number of threads, and the duration of an update with them."""
        precision: Precision = "fp32" if config.precision == "auto" else config.precision
        threads, best = self.threads, seconds_per_update(precision, self.threads)
        if config.precision == "auto" and can_train_in_bf16(self.device):
            seconds = seconds_per_update("bf16", threads)
            if best > MIN_SPEEDUP * seconds:
                precision, best = "bf16", seconds
        while self.may_use_fewer_threads and threads > 1:
            seconds = seconds_per_update(precision, threads // 2)
            if best <= MIN_SPEEDUP * seconds:
                break
            threads, best = threads // 2, seconds
        return precision, threads, best

    def seconds_used(self) -> float:
        """Return the number of seconds since the training began, the maximum over all processes."""
        return self.workers.all_reduce_max([self.clock() - self.started], self.device)[0]


def _has_fast_bf16(device: torch.device) -> bool:
    """Return True if a device has instructions for products of bfloat16 matrices.

    With the instructions of AVX-512 and 256 units or more, an update of 16 x 64 tokens takes 0.6 to 0.8 times as long
    as in float32, and 0.7 to 1 times as long with GRU cells (measured).
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # PyTorch before 2.13 has none
    return device.type == "cpu" and any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16"))


@functools.cache
def can_train_in_bf16(device: torch.device) -> bool:
    """Return True if a device can train in bfloat16.

    On a CPU without AVX-512, PyTorch's LSTM fails in bfloat16, and its GRU takes 18 times as long as in float32
    (measured).
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
    """Return the context in which the forward pass of a training runs.

    It uses float32 if the device cannot train in bfloat16, because a run may be resumed on another machine.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16" and can_train_in_bf16(device))


def _seconds_per_update(model: LanguageModel, config: TrainConfig) -> float:
    """Return the shortest duration of several updates: forward pass, backward pass and AdamW."""
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
        float(loss.detach())  # waits for a GPU

    if device.type != "cpu":
        update()  # the libraries of a GPU take seconds to start
    times: list[float] = []
    while len(times) <= MAX_TIMED_UPDATES and sum(times) < MAX_TIMED_SECONDS:
        began = time.perf_counter()
        update()
        times.append(time.perf_counter() - began)
    return min(times[1:] or times)
