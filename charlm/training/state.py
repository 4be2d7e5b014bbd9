"""State of a training: everything that changes from update to update, and its form in a save.

A training without a time limit that is resumed from a save continues bit for bit as if it had not been interrupted.

Shapes: B streams of a process, N processes, L layers, H hidden.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from charlm.engine.checkpoint import RESUME_PREFIX, Tensors
from charlm.errors import CheckpointError, ConfigError
from charlm.settings import from_dict
from charlm.training.averaging import WeightAverage
from charlm.training.distributed import Workers
from charlm.training.network import LanguageModel, State

T = TypeVar("T")

RANDOM = "random"
"""Name of the random states in a save."""

STREAM = "stream"
"""Prefix of the recurrent state of the streams in a save: `stream.0` is h, `stream.1` is c."""

AVERAGE = "average"
"""Prefix of the averaged weights in a save."""

WEIGHT = "weight"
"""Prefix of the weights in a snapshot. A save has them under their own names."""

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""AdamW's values for each weight; in a save `NAME.exp_avg` and so on."""

RENAMED = {"fruitless": "validations_without_improvement"}
"""Current names of counters, by their names in saves of earlier versions."""


@dataclass(kw_only=True)
class Counters:
    """Numbers that change from update to update. A save has them under `resume` in its metadata.

    Attributes:
        step: Number of updates.
        seconds: Time used in seconds; set when the training is saved.
        loss_sum: Sum of the training losses since the last line of the log, in nats per token.
        loss_steps: Number of updates since the last line of the log.
        recent_nats: Exponential moving average of the training losses, in nats per token.
        train_nats: Mean training loss in the last line of the log, in nats per token.
        best_nats: Lowest validation loss, in nats per token.
        validations_without_improvement: Number of validations since the one with the lowest loss.
        validated_step: Number of updates at the last validation.
        next_report: Fraction of the training at which the next line of the log is due.
        next_validation: Fraction of the training at which the next validation is due.
        learning_rate: Learning rate of the last update.
        rate_scale: Factor of the learning rate; below 1 after the training has diverged.
        recoveries: Number of returns to an earlier state after the training has diverged.
        log_bytes: Length of the log in bytes; set when the training is saved.
        workers: Number of processes; set when the training is saved.
    """

    step: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    loss_steps: int = 0
    recent_nats: float = 0.0
    train_nats: float | None = None
    best_nats: float | None = None
    validations_without_improvement: int = 0
    validated_step: int = 0
    next_report: float = 0.0
    next_validation: float = 0.0
    learning_rate: float = 0.0
    rate_scale: float = 1.0
    recoveries: int = 0
    log_bytes: int = 0
    workers: int = 1

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> "Counters":
        """Return the counters in the metadata of a save.

        Raises:
            CheckpointError: If they are missing or invalid.
        """
        counters = read_counters(cls, metadata)
        if counters.workers < 1:
            raise CheckpointError("damaged save: a counter to resume from is negative")
        return counters


def read_counters(kind: type[T], metadata: Mapping[str, Any]) -> T:
    """Return the counters in the metadata of a save.

    Args:
        kind: Their dataclass, whose fields are numbers or None.
        metadata: The metadata, which is untrusted.

    Raises:
        CheckpointError: If they are missing or invalid.
    """
    try:
        values = {RENAMED.get(name, name): value for name, value in metadata["resume"].items()}
        counters = from_dict(kind, values)
    except (KeyError, TypeError, AttributeError, ConfigError) as error:
        raise CheckpointError(f"damaged save: no valid counters to resume from ({str(error)[:80]})") from None
    if any(not value >= 0 for value in vars(counters).values() if value is not None):
        raise CheckpointError("damaged save: a counter to resume from is negative")
    return counters


def resumed_tensors(tensors: Tensors) -> dict[str, Tensor]:
    """Return the trainer's state in the tensors of a save, by the names without `RESUME_PREFIX`."""
    prefix = RESUME_PREFIX
    return {name.removeprefix(prefix): torch.from_numpy(tensors[name]) for name in tensors if name.startswith(prefix)}


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Copy of the state of this process, in memory.

    Attributes:
        counters: The counters.
        tensors: Tensors of `TrainingState.to_tensors`, and the weights.
    """

    counters: Counters
    tensors: Mapping[str, Tensor]


@dataclass(kw_only=True)
class TrainingState:
    """Everything that an update changes.

    Attributes:
        model: The model with its weights.
        optimizer: AdamW, with `MOMENTS` for each weight.
        streams: Recurrent state of the streams, (L, B, H) each.
        counters: The counters.
        average: The averaged weights.
    """

    model: LanguageModel
    optimizer: torch.optim.Optimizer
    streams: State
    counters: Counters = field(default_factory=Counters)
    average: WeightAverage = field(init=False)

    def __post_init__(self) -> None:
        self.average = WeightAverage(self.model)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.model.decoder.bias.device

    def to_tensors(self, workers: Workers) -> dict[str, Tensor]:
        """Return the tensors of a save by name, without the weights; all processes must call this.

        Streams and random states are those of all processes, (L, N * B, H) and (N, bytes). Tensors on the CPU are not
        copied. Therefore, they change at the next update.
        """
        tensors = {f"{STREAM}.{index}": workers.gather(part, dim=1) for index, part in enumerate(self.streams)}
        tensors[RANDOM] = workers.gather(random_state(self.device).to(self.device)[None], dim=0)
        for name, weight in self.model.named_parameters():
            tensors[f"{AVERAGE}.{name}"] = self.average.weights[name]
            tensors |= moments_to_save(self.optimizer, name, weight)
        return tensors

    def snapshot(self) -> Snapshot:
        """Return a copy of the state of this process."""
        weights = {f"{WEIGHT}.{name}": weight.detach() for name, weight in self.model.named_parameters()}
        tensors = {name: value.clone() for name, value in (self.to_tensors(Workers()) | weights).items()}
        return Snapshot(counters=replace(self.counters), tensors=tensors)

    def restore(self, tensors: Mapping[str, Tensor], workers: Workers, *, with_streams: bool = True) -> None:
        """Restore the state from tensors of `to_tensors`, and the weights from those of a snapshot.

        Args:
            tensors: The tensors by name.
            workers: The processes of this training.
            with_streams: Whether to restore streams and random states. This requires the same number of processes.

        Raises:
            CheckpointError: If a tensor is missing or has another shape or type.
        """
        if with_streams:
            self._restore_streams(tensors, workers)
        for name, weight in self.model.named_parameters():
            if f"{WEIGHT}.{name}" in tensors:
                weight.detach().copy_(tensors[f"{WEIGHT}.{name}"])
            self.average.weights[name].copy_(checked_tensor(tensors, f"{AVERAGE}.{name}", tuple(weight.shape)))
            self.optimizer.state[weight] = saved_moments(tensors, name, weight)

    def _restore_streams(self, tensors: Mapping[str, Tensor], workers: Workers) -> None:
        parts = []
        for index, part in enumerate(self.streams):
            layers, batch, hidden = part.shape
            whole = checked_tensor(tensors, f"{STREAM}.{index}", (layers, batch * workers.count, hidden))
            parts.append(whole[:, workers.rank * batch : (workers.rank + 1) * batch].to(part, copy=True))
        self.streams = tuple(parts)
        whole = checked_tensor(tensors, RANDOM, (workers.count, None), torch.uint8)
        set_random_state(self.device, whole[workers.rank].cpu().clone())


def moments_to_save(optimizer: torch.optim.Optimizer, name: str, weight: Tensor) -> dict[str, Tensor]:
    """Return AdamW's moments of a weight by their names in a save; none before the first update."""
    return {f"{name}.{key}": value for key, value in optimizer.state[weight].items()}


def saved_moments(tensors: Mapping[str, Tensor], name: str, weight: Tensor) -> dict[str, Tensor]:
    """Return copies of AdamW's moments of a weight; none if the training was saved before the first update."""
    keys = [key for key in MOMENTS if f"{name}.{key}" in tensors]
    if keys and len(keys) != len(MOMENTS):
        raise CheckpointError(f"damaged save: moments of {name} are missing")
    shapes = {key: () if key == "step" else tuple(weight.shape) for key in keys}
    return {key: checked_tensor(tensors, f"{name}.{key}", shapes[key]).to(weight.device, copy=True) for key in keys}


def random_state(device: torch.device) -> Tensor:
    """Return the random state of the CPU and, if the device is a GPU, its own after it: (bytes,), uint8, on the CPU."""
    parts = [torch.get_rng_state()]
    if device.type == "cuda":
        parts.append(torch.cuda.get_rng_state(device))
    elif device.type == "mps":
        parts.append(torch.mps.get_rng_state())
    return torch.cat(parts)


def set_random_state(device: torch.device, state: Tensor) -> None:
    """Restore a random state. If it was saved on another kind of device, only the state of the CPU is restored.

    Raises:
        CheckpointError: If the tensor is not a random state.
    """
    cpu_bytes = len(torch.get_rng_state())
    gpu_state = state[cpu_bytes:]
    same_kind = len(random_state(device)) == len(state)
    try:
        torch.set_rng_state(state[:cpu_bytes])
        if device.type == "cuda" and same_kind:
            torch.cuda.set_rng_state(gpu_state, device)
        elif device.type == "mps" and same_kind:
            torch.mps.set_rng_state(gpu_state)
    except RuntimeError:
        raise CheckpointError("damaged save: not a random state") from None


def checked_tensor(
    tensors: Mapping[str, Tensor], name: str, shape: tuple[int | None, ...], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return a tensor after checking its type and its shape, in which None stands for any size."""
    found = tensors.get(name)
    if found is None or found.dtype != dtype or found.ndim != len(shape):
        raise CheckpointError(f"damaged save: no tensor {name} of type {dtype} with {len(shape)} dimensions")
    if any(wanted not in (size, None) for size, wanted in zip(found.shape, shape, strict=True)):
        raise CheckpointError(f"damaged save: {name} has shape {tuple(found.shape)} instead of {shape}")
    return found
