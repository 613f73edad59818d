"""The process that a server runs under.

vLLM reports a lost worker and stops, but its exit code is then that of a server that was asked to stop. What restarts
failed servers (systemd, Kubernetes, Docker) would not notice, so this process tells the two apart. It imports little:
it lives as long as the server.
"""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from types import FrameType

from divprune.vllm_plugin.environment import METRICS_FOLDER
from divprune.vllm_plugin.owner_watchdog import end_engines_with_owner

STOPPED_BY_ITSELF = 1
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1


def watch(command: Sequence[str]) -> int:
    """Run a server until it ends; signals that ask this process to stop are passed on to it.

    Args:
        command: what starts the server.

    Returns:
        The server's exit code; 128 + n if signal n ended it; 1 if it stopped without having been asked to.
    """
    asked: list[int] = []
    server: subprocess.Popen[bytes] | None = None

    def stop(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if server is not None:
            server.send_signal(number)

    for number in STOP_SIGNALS:
        signal.signal(number, stop)
    environment = dict(os.environ)
    end_engines_with_owner(environment)
    with tempfile.TemporaryDirectory(prefix="divprune-metrics-") as folder:
        server = subprocess.Popen(command, env=environment | {METRICS_FOLDER: folder}, preexec_fn=_stop_with_parent)
        if asked:
            server.send_signal(asked[-1])
        code = server.wait()
    if code == 0 and not asked:
        print("Error: the server stopped by itself; what vLLM wrote above says why", file=sys.stderr)
        return STOPPED_BY_ITSELF
    return code if code >= 0 else 128 - code


def _stop_with_parent() -> None:
    """Have the server stopped too if this process is killed; Linux alone can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(watch(sys.argv[1:]))
