"""Engines end when the process that started them is killed.

vLLM stops its engine when the engine's owner ends in order. If the owner is killed, the engine waits for requests for
ever and keeps its memory, so that a new one may find no room. Where our commands start engines, the plugin, which every
process of vLLM loads, has the engine watch its owner, on every system that vLLM runs on. Workers watch the engine by
themselves, and end with it alone: a signal that is sent to all processes at once (by systemd, unless told otherwise)
asks the engine to answer what runs, for which it needs them. Engines that others start (`vllm.LLM`, `vllm serve`) are
left alone.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import MutableMapping
from typing import Any

FLAG = "DIVPRUNE_END_WITH_OWNER"
"""Tells it to the processes that our commands start; not meant to be set by users."""
_ENGINE = "DIVPRUNE_ENGINE"
"""Which of them is the engine: the first; those that it starts, which inherit this, are its workers."""
THREAD = "divprune-owner"
SECONDS_TO_END = 10


def end_engines_with_owner(environment: MutableMapping[str, str]) -> None:
    """Have engines watch their owner.

    Args:
        environment: of the process that is going to start engines; they inherit it. It is changed.
    """
    environment[FLAG] = "1"
    # A forked process does not load plugins again. Spawning is what vLLM's own server does.
    environment.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")


def watch_owner() -> None:
    """Watch the process that started this one, if that was asked for; called in every process of vLLM."""
    owner = multiprocessing.parent_process()
    is_watched = any(thread.name == THREAD for thread in threading.enumerate())
    if owner is not None and not is_watched and os.environ.get(FLAG):
        threading.Thread(target=_end_after, args=(owner,), name=THREAD, daemon=True).start()
        if os.environ.setdefault(_ENGINE, str(os.getpid())) != str(os.getpid()):
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)


def _end_after(owner: Any) -> None:
    owner.join()
    os.kill(os.getpid(), signal.SIGTERM)
    # It may be loading a model, or wait for a worker that is.
    time.sleep(SECONDS_TO_END)
    os.kill(os.getpid(), signal.SIGKILL)
