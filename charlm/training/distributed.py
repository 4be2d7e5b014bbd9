"""Where a training computes: on which device, and in how many processes.

`torchrun --nproc-per-node N -m charlm train ...` starts N processes, which find each other through torch.distributed.
Each has its own streams; gradients are averaged before every update, so that all hold the same weights.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from charlm.errors import ConfigError, PeerLostError
from charlm.training.launch import rank_and_count


@dataclass(frozen=True)
class Workers:
    """The processes of a training, as one of them sees it; alone, none of this does anything.

    Attributes:
        rank: This process's number; process 0 writes and reports.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def average_gradients(self, model: nn.Module, nats: float) -> float:
        """Average all gradients over the processes, in place, and the loss along with them.

        Returns:
            The mean loss. One that is no number anywhere is none everywhere, so that all processes act alike.
        """
        if self.count == 1:
            return nats
        grads = [weight.grad for weight in model.parameters() if weight.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads] + [grads[0].new_tensor([nats])])
        with _together():
            dist.all_reduce(flat)
        flat /= self.count
        parts = torch.split(flat[:-1], [grad.numel() for grad in grads])
        for grad, part in zip(grads, parts, strict=True):
            grad.copy_(part.view_as(grad))
        return float(flat[-1])

    def all_reduce_max(self, values: Sequence[float], device: torch.device) -> list[float]:
        """The greatest value that any process has, for each of several."""
        if self.count == 1:
            return list(values)
        together = torch.tensor(values, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
        with _together():
            dist.all_reduce(together, op=dist.ReduceOp.MAX)
        return together.tolist()

    def gather(self, part: Tensor, dim: int) -> Tensor:
        """Join what each process has along a dimension, by rank; all processes get it."""
        if self.count == 1:
            return part
        parts = [torch.empty_like(part) for _ in range(self.count)]
        with _together():
            dist.all_gather(parts, part.contiguous())
        return torch.cat(parts, dim=dim)


@contextmanager
def joined_workers(device: torch.device) -> Iterator[Workers]:
    """Meet the other processes that torchrun started, if it did.

    Raises:
        PeerLostError: If one of them is gone before, or while they learn.
    """
    rank, count = rank_and_count()
    if count == 1:
        yield Workers()
        return
    with _together(), _signals_end_at_once():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Workers(rank, count)
    finally:
        dist.destroy_process_group()


@contextmanager
def _together() -> Iterator[None]:
    """Say it in one line when another process is gone."""
    try:
        yield
    except RuntimeError:
        raise PeerLostError(
            "another process of this training has ended: see what it says; charlm train --resume goes on from the "
            "last save"
        ) from None


@contextmanager
def _signals_end_at_once() -> Iterator[None]:
    """While waiting for others, which may never come, nothing is there to be saved, and no handler would be called."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def find_device(name: str) -> torch.device:
    """The device of a name.

    Args:
        name: cpu, cuda, mps, or auto for the first of cuda, mps and cpu that this machine has.

    Raises:
        ConfigError: If this machine, or this PyTorch, has none of the name, or not one for each process.
    """
    several = rank_and_count()[1] > 1
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available() and not several, "cpu": True}
    if name == "auto":
        name = next(kind for kind, found in there.items() if found)
    if not there[name]:
        of_them = " that several processes could use" if several else ""
        raise ConfigError(
            f"--device {name}: PyTorch {torch.__version__} finds none here{of_them}; leave it out, or take cpu"
        )
    if name == "cuda":  # one of several processes on a machine takes the device of its number
        number, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if number >= count:
            raise ConfigError(
                f"--device cuda: more processes than GPUs, of which this machine has {count}; or take cpu"
            )
        torch.cuda.set_device(number)
    return torch.device(name)
