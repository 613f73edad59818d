"""Ctrl-C goes to every process of a terminal; an engine's own leave it to the one that started them."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess


@contextmanager
def interrupts_kept_here() -> Iterator[None]:
    """Start processes inside the block, and processes that those start, deaf to Ctrl-C.

    Their owner ends them; by themselves each would write a page of tracebacks. What is pressed while one is being
    started reaches this process right afterwards.
    """
    start = BaseProcess.start

    def start_deaf(process: BaseProcess) -> None:
        # A new process begins with the mask of the thread that starts it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            start(process)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    BaseProcess.start = start_deaf  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        BaseProcess.start = start  # type: ignore[method-assign]
