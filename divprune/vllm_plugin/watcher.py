"""What a server and the process that it runs under (`divprune.serving.watch`), the watcher, agree on.

The watcher sends SIGTERM (answer what runs, take nothing new, end) and CUT (end what runs too); the server sends READY.
The watcher makes a folder for the server's workers, and removes it when they have ended.
"""

import os
import signal
from collections.abc import MutableMapping

READY = signal.SIGUSR1
CUT = signal.SIGUSR1
"""Ends a server that has not said that it is ready, as it ends any program that does not expect it."""
METRICS_FOLDER = "DIVPRUNE_METRICS_FOLDER"
"""Names the folder in which workers write how long they selected tokens; without it, that is not timed."""
_WATCHER = "DIVPRUNE_WATCHER"


def name_watcher(environment: MutableMapping[str, str]) -> None:
    """Have a server that is started with this environment say to this process that it is ready."""
    environment[_WATCHER] = str(os.getpid())


def tell_ready() -> None:
    """Say to the watcher that requests are answered from now on; a server that nobody watches has nobody to tell."""
    watcher = os.environ.get(_WATCHER)
    if watcher is not None:
        os.kill(int(watcher), READY)
