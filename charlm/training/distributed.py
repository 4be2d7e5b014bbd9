"""Device of a training, and the processes that train together.

`torchrun --nproc-per-node N -m charlm train ...` starts N processes, which find each other through torch.distributed.
Each process has its own streams of the text. Gradients are averaged before every update, so that all processes have the
same weights.
"""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from charlm.errors import ConfigError, PeerLostError
from charlm.training.launch import local_rank, rank_and_count


@dataclass(frozen=True)
class Workers:
    """Processes of a training, as one of them sees them.

    With a single process, every method returns its argument unchanged.

    Attributes:
        rank: Number of this process. Process 0 writes files and reports progress.
        count: Number of processes.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """True if this process writes files and reports progress."""
        return self.rank == 0

    def average_gradients(self, model: nn.Module, nats: float) -> float:
        """Average all gradients over the processes, in place, and the loss.

        Args:
            model: Model whose parameters have gradients.
            nats: Loss of this process in nats per token.

        Returns:
            The mean loss. It is NaN in all processes if it is NaN in one, so that all processes decide alike.
        """
        if self.count == 1:
            return nats
        grads = [weight.grad for weight in model.parameters() if weight.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads] + [grads[0].new_tensor([nats])])
        with _peer_errors():
            dist.all_reduce(flat)
        flat /= self.count
        parts = torch.split(flat[:-1], [grad.numel() for grad in grads])
        for grad, part in zip(grads, parts, strict=True):
            grad.copy_(part.view_as(grad))
        return float(flat[-1])

    def all_reduce_max(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Return, for each of several values, its maximum over all processes."""
        if self.count == 1:
            return list(values)
        dtype = torch.float32 if device.type == "mps" else torch.float64
        reduced = torch.tensor(values, dtype=dtype, device=device)
        with _peer_errors():
            dist.all_reduce(reduced, op=dist.ReduceOp.MAX)
        return reduced.tolist()

    def gather(self, part: Tensor, dim: int) -> Tensor:
        """Return the tensors of all processes, in order of rank, concatenated along a dimension."""
        if self.count == 1:
            return part
        parts = [torch.empty_like(part) for _ in range(self.count)]
        with _peer_errors():
            dist.all_gather(parts, part.contiguous())
        return torch.cat(parts, dim=dim)


@contextmanager
def joined_workers(device: torch.device) -> Iterator[Workers]:
    """Connect to the other processes that torchrun started, if any, and disconnect at the end.

    Raises:
        PeerLostError: If another process ends before the connection is complete.
    """
    rank, count = rank_and_count()
    if count == 1:
        yield Workers()
        return
    with _peer_errors(), _default_signal_handlers():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Workers(rank, count)
    finally:
        dist.destroy_process_group()


@contextmanager
def _peer_errors() -> Iterator[None]:
    """Turn PyTorch's error about a lost connection into `PeerLostError`."""
    try:
        yield
    except RuntimeError:
        raise PeerLostError(
            "another process of this training has ended, see its message; set resume to continue from the last save",
            fields=["resume"],
        ) from None


@contextmanager
def _default_signal_handlers() -> Iterator[None]:
    """Let signals end the process at once.

    While a process waits for another one, which may never connect, Python would not call a handler. There is nothing to
    save yet.
    """
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def find_device(name: str) -> torch.device:
    """Return a device by name.

    Args:
        name: cpu, cuda or mps, or auto for the first of cuda, mps and cpu that is available.

    Raises:
        ConfigError: If the device is not available, or there are fewer GPUs than processes.
    """
    several = rank_and_count()[1] > 1
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available() and not several,
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, found in available.items() if found)
    if not available[name]:
        use = " for several processes" if several else ""
        raise ConfigError(
            f"device {name}: not available{use} on this machine with PyTorch {torch.__version__}; use auto or cpu",
            fields=["device"],
        )
    if name == "cuda":
        _select_gpu(local_rank())
    return torch.device(name)


def _select_gpu(number: int) -> None:
    """Make a GPU the current one; each process of a machine has its own."""
    count = torch.cuda.device_count()
    if number >= count:
        raise ConfigError(
            f"device cuda: this machine has {count} GPU(s), fewer than processes; start fewer, or use cpu",
            fields=["device"],
        )
    torch.cuda.set_device(number)
