"""The process that a server runs under.

It stops the server when it is asked to, in three steps, each of which is taken if the one before has not ended it:

    drain    SIGTERM: no new request; those that run have `grace` seconds. Left out while the server is not ready yet
    cut      what still runs is told that the server stops, and its connections are closed
    kill     every process of the server

It also tells a server that was asked to stop from one that stopped: vLLM reports a lost worker and stops, but its exit
code is then that of a server that was asked to. What restarts failed servers (systemd, Kubernetes, Docker) would not
notice. It imports little: it lives as long as the server.
"""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

from divprune.vllm_plugin.owner_watchdog import end_engines_with_owner
from divprune.vllm_plugin.watcher import CUT, METRICS_FOLDER, READY, name_watcher

STOPPED_BY_ITSELF = 1
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SECONDS_TO_CLOSE = 9.0
"""For vLLM to end its engines, after the last stream; more than `lifetime_middleware.SECONDS_FOR_ENGINES`."""
SECONDS_FOR_REST = 2.0
"""For processes that the server has left behind."""
SECONDS_TOGETHER = 0.1
"""Signals that come together count once: from a terminal, for one, and from what runs this command in it."""
_PR_SET_PDEATHSIG = 1
_RUNNING, _DRAINED, _CUT, _KILLED = range(4)


class _Watcher:
    """Stops a server step by step: at the first signal, when time is up, at each further signal."""

    def __init__(self, grace: float, seconds_to_close: float) -> None:
        self._grace, self._seconds_to_close = grace, seconds_to_close
        self.is_ready, self.step = False, _RUNNING
        self._server: subprocess.Popen[bytes] | None = None

    def run(self, command: Sequence[str]) -> int:
        """Run the server to its end; return its exit code as `subprocess` has it."""
        with tempfile.TemporaryDirectory(prefix="divprune-metrics-", ignore_cleanup_errors=True) as folder:
            return self._run(command, folder)

    def _run(self, command: Sequence[str], metrics_folder: str) -> int:
        environment = os.environ | {METRICS_FOLDER: metrics_folder}
        end_engines_with_owner(environment)
        name_watcher(environment)
        signals = {*STOP_SIGNALS, READY, signal.SIGALRM}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        self._listen()
        # In a session of its own a server gets no signal but ours: Ctrl-C would end its engine under running requests.
        self._server = server = subprocess.Popen(
            command, env=environment, start_new_session=True, preexec_fn=lambda: _prepare(signals)
        )
        # What was sent since the command began comes now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        code = server.wait()
        signal.setitimer(signal.ITIMER_REAL, 0)
        _end_group(server.pid, min(SECONDS_FOR_REST, self._seconds_to_close))
        return code

    def _listen(self) -> None:
        for number in STOP_SIGNALS:
            # Started by nohup, it is not to end with the terminal.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._on_stop)
        signal.signal(READY, self._on_ready)
        signal.signal(signal.SIGALRM, self._on_time_up)

    def _on_ready(self, number: int, frame: FrameType | None) -> None:
        self.is_ready = True

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        # A terminal that closes says so after other signals too, and more than once.
        if self.step == _RUNNING or number != signal.SIGHUP:
            signal.setitimer(signal.ITIMER_REAL, SECONDS_TOGETHER)

    def _on_time_up(self, number: int, frame: FrameType | None) -> None:
        """Take the next step."""
        if self._server is None or self._server.poll() is not None:
            return
        can_drain = self.is_ready and self._grace > 0
        self.step = _CUT if self.step == _RUNNING and not can_drain else min(self.step + 1, _KILLED)
        if self.step == _DRAINED:
            _say(f"stopping: running requests have {self._grace:g} s; the same signal again ends them at once")
            # Before the signal: what it brings about may be another one, which sets the timer anew.
            signal.setitimer(signal.ITIMER_REAL, self._grace)
            self._server.send_signal(signal.SIGTERM)
        elif self.step == _CUT:
            _say("stopping: what still runs is ended now" if self.is_ready else "stopping: it was not ready yet")
            signal.setitimer(signal.ITIMER_REAL, self._seconds_to_close)
            self._server.send_signal(CUT if self.is_ready else signal.SIGTERM)
        else:
            _say("stopping: killed, since it did not end")
            _signal_group(self._server.pid, signal.SIGKILL)


def watch(command: Sequence[str], grace: float, seconds_to_close: float = SECONDS_TO_CLOSE) -> int:
    """Run a server until it ends, and stop it when this process is asked to.

    Args:
        command: what starts the server.
        grace: how many seconds running requests may take after the first signal.
        seconds_to_close: how many more the server may take before it is killed.

    Returns:
        0 if the server was asked to stop and did, or had not been ready yet; 128 + 9 if a ready one had to be killed.
        If it was not asked: its exit code, 128 + n if signal n ended it, 1 if it stopped as if it had been asked to.
    """
    watcher = _Watcher(grace, seconds_to_close)
    code = watcher.run(command)
    if watcher.step == _KILLED and watcher.is_ready:
        return 128 + signal.SIGKILL
    if watcher.step != _RUNNING:
        return 0
    if code == 0:
        _say("Error: the server stopped by itself; what vLLM wrote above says why")
        return STOPPED_BY_ITSELF
    return code if code >= 0 else 128 - code


def _say(text: str) -> None:
    # Not `print`: a signal may come in the middle of one.
    os.write(sys.stderr.fileno(), f"{text}\n".encode())


def _prepare(blocked: set[signal.Signals]) -> None:
    """Run in the server's process before it becomes one."""
    if sys.platform == "linux":
        # If the watcher is killed, nobody is left who could stop the server by and by.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)


def _end_group(group: int, seconds: float) -> None:
    """Wait until no process of the server is left, and kill what does not end."""
    begun, number = time.monotonic(), 0
    while _signal_group(group, number) and time.monotonic() < begun + 2 * seconds:
        if time.monotonic() > begun + seconds:
            number = signal.SIGKILL
        # In a container whose first process this is, orphans are its own.
        with suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        time.sleep(0.05)


def _signal_group(group: int, number: int) -> bool:
    """Signal all processes of a group; False if there are none."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        # macOS says the second where all of them have ended and nobody has waited for them.
        return False
    return True


if __name__ == "__main__":
    sys.exit(watch(sys.argv[2:], grace=float(sys.argv[1])))
