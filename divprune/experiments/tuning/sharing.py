"""Questions shared out among the processes of torchrun or accelerate; each knows what all have found."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import distributed

from divprune.checkpoints import choose_device
from divprune.distributed import local_rank, num_processes, rank

Key = TypeVar("Key")
Value = TypeVar("Value")


def join() -> None:
    """Wait for all processes; nothing happens if this is the only one."""
    if num_processes() > 1:
        if not distributed.is_initialized():
            distributed.init_process_group("gloo")
        distributed.barrier()


def own_share(places: Sequence[int]) -> Sequence[int]:
    """Return those of this process."""
    return places[rank() :: num_processes()]


def gathered(found: Mapping[Key, Value]) -> dict[Key, Value]:
    """Return what all processes have found. All must call it equally often."""
    if num_processes() == 1:
        return dict(found)
    parts: list[Any] = [None] * num_processes()
    distributed.all_gather_object(parts, dict(found))
    return {key: value for part in parts for key, value in part.items()}


def own_device(name: str) -> torch.device:
    """Choose a device as `choose_device` does; on a machine with several GPUs each process gets its own."""
    device = choose_device(name)
    if device.type == "cuda" and name in ("auto", "cuda") and num_processes() > 1:
        return torch.device("cuda", local_rank() % torch.cuda.device_count())
    return device
