"""What a training stands on, beside the text and its settings: taken down, and taken up again to the last bit.

Shapes: B streams of a process, N processes, L layers, H hidden.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from charlm.config import from_dict
from charlm.errors import CheckpointError, ConfigError
from charlm.training.distributed import Workers
from charlm.training.network import LanguageModel, State

RANDOM = "random"
STREAM = "stream"
WEIGHT = "weight"
AVERAGE = "average"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps of each weight."""

AVERAGED = 0.1
"""The share of the updates so far, the last ones, over which the weights are averaged, at the peak learning rate."""

AVERAGE_EVERY = 8
"""Updates from one whose weights are taken into the average to the next, once there were so many times so many: it
costs a fiftieth of an update."""


RENAMED = {"fruitless": "validations_without_improvement"}
"""Names in saves of earlier versions, and what they are called now."""


@dataclass(kw_only=True)
class Position:
    """Where a training stands, in numbers; a save has them in its story.

    Attributes:
        step: Updates made.
        seconds: Time used, as of the save.
        loss_sum: Training losses since the last line of the log, nats a token.
        loss_steps: Updates since then.
        recent_nats: Running mean of the training losses.
        train_nats: Mean training loss in the last line of the log.
        best_nats: Best validation loss.
        validations_without_improvement: Validations since then.
        next_report: Share of the budget at which the next line of the log is due.
        next_validation: Share of the budget at which the next validation is due.
        learning_rate: Of the last update.
        rate_scale: What the learning rate is multiplied by.
        recoveries: Times that the training has gone back to a good state.
        log_bytes: Length of the log, as of the save.
        workers: Processes that learn.
    """

    step: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    loss_steps: int = 0
    recent_nats: float = 0.0
    train_nats: float | None = None
    best_nats: float | None = None
    validations_without_improvement: int = 0
    next_report: float = 0.0
    next_validation: float = 0.0
    learning_rate: float = 0.0
    rate_scale: float = 1.0
    recoveries: int = 0
    log_bytes: int = 0
    workers: int = 1

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> "Position":
        """Read it from a save's story.

        Raises:
            CheckpointError: If it is not there, or makes no sense.
        """
        try:
            values = {RENAMED.get(name, name): value for name, value in metadata["resume"].items()}
            position = from_dict(cls, values)
        except (KeyError, TypeError, AttributeError, ConfigError) as error:
            raise CheckpointError(f"nothing to resume from in this save ({str(error)[:80]})") from None
        if any(not value >= 0 for value in asdict(position).values() if value is not None) or position.workers < 1:
            raise CheckpointError("nothing to resume from in this save (a number below zero)")
        return position


@dataclass
class Learner:
    """All that an update changes.

    Attributes:
        model: The weights.
        optimizer: AdamW, which keeps `MOMENTS` of each of them.
        state: The streams' state, (L, B, H) each.
        averages: The mean of each weight's last values, of its shape.
    """

    model: LanguageModel
    optimizer: torch.optim.Optimizer
    state: State
    averages: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.averages = {name: weight.detach().clone() for name, weight in self.model.named_parameters()}

    @torch.no_grad()
    def average(self, step: int, rate_share: float) -> None:
        """Take the weights of an update into their averages.

        The mean of the last updates stands where a falling learning rate would have led to. Where the rate has fallen,
        fewer of them are needed, and older ones do harm.

        Args:
            step: The update's number; the first has 1.
            rate_share: Its learning rate, as a share of the peak.

        Source:
            Polynomial-decay averaging, Shamir and Zhang, arXiv 1212.1824, whose window here shrinks with the rate.
        """
        if step > AVERAGE_EVERY**2 and step % AVERAGE_EVERY:
            return
        updates = 1 if step <= AVERAGE_EVERY**2 else AVERAGE_EVERY
        share = min(1.0, updates / (AVERAGED * rate_share * step))
        torch._foreach_lerp_(list(self.averages.values()), list(self.model.parameters()), share)

    @contextmanager
    def averaged(self, *, half: bool = False) -> Iterator[None]:
        """Put the averages in the weights' place for a while, rounded to half precision if asked."""
        own = [weight.detach().clone() for weight in self.model.parameters()]
        self._set_weights(value.half() if half else value for value in self.averages.values())
        try:
            yield
        finally:
            self._set_weights(own)

    def _set_weights(self, values: Iterable[Tensor]) -> None:
        for weight, value in zip(self.model.parameters(), values, strict=True):
            weight.detach().copy_(value)

    def tensors(self, workers: Workers) -> dict[str, Tensor]:
        """Everything by name; the streams' state and random numbers of all processes, (L, N * B, H) and (N, bytes).

        What lies on the CPU is not copied: `restore` a copy, or before the next update.
        """
        device = self.model.decoder.bias.device
        found = {f"{STREAM}.{index}": workers.gather(part, dim=1) for index, part in enumerate(self.state)}
        found[RANDOM] = workers.gather(random_state(device).to(device)[None], dim=0)
        for name, weight in self.model.named_parameters():
            found[f"{AVERAGE}.{name}"] = self.averages[name]
            for key, value in self.optimizer.state[weight].items():
                found[f"{name}.{key}"] = value
        return found

    def copy(self) -> dict[str, Tensor]:
        """All of this process's `tensors` and the weights, in memory of their own."""
        weights = {f"{WEIGHT}.{name}": weight.detach() for name, weight in self.model.named_parameters()}
        return {name: value.clone() for name, value in (self.tensors(Workers()) | weights).items()}

    def restore(self, saved: Mapping[str, Tensor], workers: Workers, *, streams: bool = True) -> None:
        """Take up what `tensors` gave, and the weights, if they are there.

        Args:
            saved: The tensors.
            workers: The processes.
            streams: Whether the processes are as many as they were; if not, streams start anew, from the zero state.

        Raises:
            CheckpointError: If one is missing or of another shape.
        """
        device = self.model.decoder.bias.device
        if streams:
            parts = []
            for index, part in enumerate(self.state):
                layers, batch, hidden = part.shape
                whole = _checked(saved, f"{STREAM}.{index}", (layers, batch * workers.count, hidden))
                parts.append(whole[:, workers.rank * batch : (workers.rank + 1) * batch].to(part, copy=True))
            self.state = tuple(parts)
            whole = _checked(saved, RANDOM, (workers.count, None), torch.uint8)
            set_random_state(device, whole[workers.rank].cpu().clone())
        for name, weight in self.model.named_parameters():
            if f"{WEIGHT}.{name}" in saved:
                weight.detach().copy_(saved[f"{WEIGHT}.{name}"])
            self.averages[name].copy_(_checked(saved, f"{AVERAGE}.{name}", tuple(weight.shape)))
            keys = [key for key in MOMENTS if f"{name}.{key}" in saved]  # none before the first update
            shapes = {key: () if key == "step" else tuple(weight.shape) for key in keys}
            self.optimizer.state[weight] = {
                key: _checked(saved, f"{name}.{key}", shapes[key]).to(device, copy=True) for key in keys
            }
            if keys and len(keys) != len(MOMENTS):
                raise CheckpointError(f"damaged save (moments of {name} are missing)")


def random_state(device: torch.device) -> Tensor:
    """The state of all random numbers, (bytes,), uint8, on the CPU: its own, and those that a GPU draws behind them."""
    parts = [torch.get_rng_state()]
    if device.type == "cuda":
        parts.append(torch.cuda.get_rng_state(device))
    elif device.type == "mps":
        parts.append(torch.mps.get_rng_state())
    return torch.cat(parts)


def set_random_state(device: torch.device, state: Tensor) -> None:
    """Set what `random_state` gave; what a device of another kind draws goes on as it is.

    Raises:
        CheckpointError: If it is none.
    """
    cpu_bytes = len(torch.get_rng_state())
    gpu = state[cpu_bytes:]
    same_kind = len(random_state(device)) == len(state)
    try:
        torch.set_rng_state(state[:cpu_bytes])
        if device.type == "cuda" and same_kind:
            torch.cuda.set_rng_state(gpu, device)
        elif device.type == "mps" and same_kind:
            torch.mps.set_rng_state(gpu)
    except RuntimeError:
        raise CheckpointError("damaged save (no state of random numbers)") from None


def _checked(
    saved: Mapping[str, Tensor], name: str, shape: tuple[int | None, ...], dtype: torch.dtype = torch.float32
) -> Tensor:
    """A saved tensor, if it has this shape, in which None stands for any size."""
    found = saved.get(name)
    if found is None or found.dtype != dtype or found.ndim != len(shape):
        raise CheckpointError(f"damaged save (no {dtype} {shape} of the name {name})")
    if any(wanted not in (size, None) for size, wanted in zip(found.shape, shape, strict=True)):
        raise CheckpointError(f"damaged save ({name} is {tuple(found.shape)}, not {shape})")
    return found
