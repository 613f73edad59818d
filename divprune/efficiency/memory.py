"""How much memory a call needs: a high-water mark, so each is taken in a process of its own."""

import contextlib
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def in_own_process(
    function: Callable[Arguments, Returned], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Returned:
    """Call a module-level function in a fresh Python process and return what it returns; exceptions come through."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(function, *args, **kwargs).result()


def peak_memory_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Return the most memory that was in use while a call ran, all that was there before (the weights) included.

    On CUDA that is what torch has allocated on the device; elsewhere the resident memory of this process (where the
    system cannot forget an earlier, higher mark, the highest since the process began).
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")  # Linux: forget the peak so far
    call()
    return _peak_resident_bytes()


def _peak_resident_bytes() -> int:
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # there is none on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
