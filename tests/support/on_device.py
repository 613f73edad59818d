"""Tests that know nothing of devices, on another one than the CPU: everything that they make is made there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def everything_on(device: str) -> Iterator[None]:
    """Make tensors, models and generators of random numbers on a device wherever none is named."""
    real: Any = torch.Generator

    def generator(named: str = device) -> torch.Generator:
        made: torch.Generator = real(named)
        return made

    torch.Generator = generator  # type: ignore[misc, assignment]
    try:
        with torch.device(device):
            yield
    finally:
        torch.Generator = real  # type: ignore[misc]
