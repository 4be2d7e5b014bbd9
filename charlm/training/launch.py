"""Requirements of a training before PyTorch is imported: the package, and the processes that torchrun announces."""

import importlib.util
import os

from charlm.errors import ConfigError, PackageError

PYTORCH_MISSING = (
    "training and lessons need PyTorch, which is not installed: pip install torch (or, smaller and without GPU "
    "support: pip install torch --index-url https://download.pytorch.org/whl/cpu)"
)
"""Message for an installation without PyTorch."""

VARIABLES = ("RANK", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that several processes need besides WORLD_SIZE."""

MAX_PROCESSES = 2**16
"""Maximum number of processes."""

MAX_PORT = 2**16 - 1
"""Maximum number of a port."""


def check_pytorch() -> None:
    """Check that PyTorch is installed, without importing it.

    Raises:
        PackageError: If it is not.
    """
    if importlib.util.find_spec("torch") is None:
        raise PackageError(PYTORCH_MISSING)


def rank_and_count() -> tuple[int, int]:
    """Return the rank of this process and the number of processes; 0 and 1 without torchrun.

    Raises:
        ConfigError: If a variable is missing or is not a valid number. Other programs set some of them too.
    """
    count = _read("WORLD_SIZE", 1, MAX_PROCESSES) if os.environ.get("WORLD_SIZE") else 1
    if count == 1:
        return 0, 1
    for name in VARIABLES:
        if not os.environ.get(name):
            raise ConfigError(
                f"WORLD_SIZE {count}: the environment variable {name} is not set; start the processes with torchrun, "
                "or unset WORLD_SIZE"
            )
    _read("MASTER_PORT", 0, MAX_PORT)
    return _read("RANK", 0, count - 1), count


def local_rank() -> int:
    """Return the number of this process among those of its machine.

    Raises:
        ConfigError: If it is not a valid number.
    """
    return _read("LOCAL_RANK", 0, MAX_PROCESSES) if os.environ.get("LOCAL_RANK") else 0


def _read(name: str, minimum: int, maximum: int) -> int:
    """Return the number in an environment variable."""
    text = os.environ[name]
    if not (text.isascii() and text.isdigit() and len(text) < 10 and minimum <= int(text) <= maximum):
        raise ConfigError(
            f"{name} {text[:80]!r}: the environment variable must be a number from {minimum} to {maximum}; unset it, "
            "or start the processes with torchrun"
        )
    return int(text)
