"""Memory that this process may use: that of the machine, or a lower limit of the shell or the container."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
"""Number of bytes in a GiB."""

CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files in which Linux states the memory limit of a container: with control groups of version 2 and of version 1."""


@dataclass(frozen=True, order=True)
class MemoryLimit:
    """Limit of the memory of this process.

    Attributes:
        num_bytes: The limit in bytes.
        owner: Beginning of a sentence that ends with the limit.
    """

    num_bytes: int
    owner: str

    def __str__(self) -> str:
        return f"{self.owner} {self.num_bytes / GIB:,.1f} GiB"


def memory_limit() -> MemoryLimit | None:
    """Return the lowest limit of the memory of this process, or None if the system does not tell."""
    limits = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        limits.append(MemoryLimit(physical, "this machine has"))
    if sys.platform != "win32":
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            limits.append(MemoryLimit(soft, "the limit of this process (ulimit -v) is"))
    for path in map(Path, CONTAINER_LIMITS):
        try:
            text = path.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if text.isdigit():  # or `max`, for no limit
            limits.append(MemoryLimit(int(text), "the limit of this container is"))
    return min(limits, default=None)
