"""The processes that torchrun or accelerate started, each with a part of the questions."""

import os


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Return its number among those of the same machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_main_process() -> bool:
    """Tell whether this process writes records and shows tables: the first one, or the only one."""
    return rank() == 0


def num_processes() -> int:
    """Count how many there are, 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))
