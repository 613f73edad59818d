"""Functions that tests call in a process of their own, which has to repair torchvision for itself."""

# isort: off
import tests.conftest  # noqa: F401  # before anything that imports transformers

# isort: on
import os

import torch

from divprune.efficiency import peak_memory_bytes


def allocate(mebibytes: int) -> int:
    """Peak while so much is held, in a process that has held more before."""
    torch.ones(400 * 2**18)
    return peak_memory_bytes(lambda: torch.ones(mebibytes * 2**18), torch.device("cpu"))


def fail() -> int:
    raise ValueError(f"in process {os.getpid()}")
