"""Processes of a distributed training, as torchrun announces them in the environment."""

import os


def rank_and_count() -> tuple[int, int]:
    """Return the rank of this process and the number of processes; 0 and 1 without torchrun."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
