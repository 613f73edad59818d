"""The process that a server runs under, with short commands in place of servers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

LONG = 600.0
"""Seconds that no test waits for."""
WATCH = "import sys; from divprune.serving.watch import watch; grace, close, *command = sys.argv[1:]; "
WATCH += "sys.exit(watch(command, float(grace), float(close)))"
# As vLLM's server with our middleware, as far as signals see it, with a worker. It writes down what it gets, and ends
# with 0 at the first signal in `ends`; the worker ends with it, unless it is to hang, and says so if it gets a signal.
SERVER = """
import os, signal, subprocess, sys
READY, TERM, CUT = signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1
ready, ends = sys.argv[1] == "ready", sys.argv[2].split(",")

def got(number, frame):
    name = {TERM: "term", CUT: "cut", signal.SIGINT: "int", signal.SIGHUP: "hup"}[number]
    os.write(1, f"{name}\\n".encode())
    if name in ends:
        os._exit(0)

for number in (signal.SIGINT, TERM, signal.SIGHUP, *([CUT] if ready else [])):
    signal.signal(number, got)
worker = "import os, signal, sys, time; got = lambda *_: os.write(2, b'worker got a signal'); "
worker += "[signal.signal(number, got) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]; "
worker += "print('up', flush=True); " + ("time.sleep(600)" if "never" in ends else "sys.stdin.read()")
child = subprocess.Popen([sys.executable, "-S", "-c", worker], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
if ready:
    os.kill(int(os.environ["DIVPRUNE_WATCHER"]), READY)
print(os.getpid(), child.pid, flush=True)
while True:
    signal.pause()
"""


class Watched:
    """A fake server that is up, and what watches it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.numbers = [int(number) for number in self.line().split()]

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def end(self) -> tuple[int, list[str], str]:
        """The exit code, what else the server got, and what was said; nothing of the server may run on."""
        out, error = self.process.communicate(timeout=60)
        assert not [number for number in self.numbers if is_running(number)]
        return self.process.returncode, out.split(), error


def start(
    *command: str, grace: float = LONG, close: float = LONG, before: Callable[[], None] | None = None
) -> subprocess.Popen[str]:
    """Under the watcher, in a process group of its own as a shell would start it."""
    whole = [sys.executable, "-c", WATCH, str(grace), str(close), *command]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(whole, **pipes, text=True, process_group=0, preexec_fn=before)


def started(state: str, ends: str, **times: float) -> Watched:
    return Watched(start(sys.executable, "-S", "-c", SERVER, state, ends, **times))


def is_running(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


DRAINS = "stopping: running requests have {:g} s; the same signal again ends them at once"
ENDS = "stopping: what still runs is ended now"
STARTS = "stopping: it was not ready yet"
KILLS = "stopping: killed"
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
leader_and_group = pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["leader", "group"])
every_signal = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


@every_signal
@leader_and_group
@pytest.mark.parametrize(
    ("state", "ends", "grace", "close", "code", "steps"),
    [
        ("ready", "term", LONG, LONG, 0, [DRAINS]),
        ("ready", "cut", 0.05, LONG, 0, [DRAINS, ENDS]),
        ("ready", "cut", 0.0, LONG, 0, [ENDS]),
        ("ready", "never", 0.05, 0.05, 137, [DRAINS, ENDS, KILLS]),
        ("starting", "term", LONG, LONG, 0, [STARTS]),
        ("starting", "never", LONG, 0.05, 0, [STARTS, KILLS]),
    ],
    ids=["drains", "past the grace", "no grace", "hangs", "starting", "hangs while it starts"],
)
def test_a_stop(
    send: Callable[[int, int], None], number: int, state: str, ends: str, grace: float, close: float, code: int,
    steps: list[str],
) -> None:  # fmt: skip
    """Whoever is signalled with what: the server gets SIGTERM or CUT, its worker nothing, and all of it ends."""
    watched = started(state, ends, grace=grace, close=close)
    send(watched.process.pid, number)
    found, got, said = watched.end()
    assert [line.split(",")[0] for line in said.splitlines()] == [step.format(grace) for step in steps]
    assert found == code
    assert set(got) <= {"term", "cut"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@leader_and_group
def test_a_second_signal_skips_the_waiting(send: Callable[[int, int], None], number: int) -> None:
    watched = started("ready", "cut")
    send(watched.process.pid, number)
    assert watched.line() == "term\n"
    send(watched.process.pid, number)
    code, got, said = watched.end()
    assert (code, got) == (0, ["cut"])
    assert "running requests have 600 s" in said


def test_a_third_one_kills() -> None:
    watched = started("ready", "never")
    for expected in ("term\n", "cut\n"):
        watched.process.send_signal(signal.SIGINT)
        assert watched.line() == expected
    watched.process.send_signal(signal.SIGINT)
    code, _, said = watched.end()
    assert code == 128 + 9
    assert said.endswith("stopping: killed, since it did not end\n")


def test_a_terminal_that_closes_does_not_skip_the_waiting() -> None:
    """Kernel and shell both say so, and systemd may after its own signal."""
    watched = started("ready", "cut")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGHUP):
        watched.process.send_signal(number)
    assert watched.line() == "term\n"
    watched.process.send_signal(signal.SIGTERM)
    assert watched.end()[:2] == (0, ["cut"])


def test_nohup_holds() -> None:
    watched = Watched(
        start(
            *(sys.executable, "-S", "-c", SERVER, "ready", "term"),
            before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN) and None,
        )
    )
    watched.process.send_signal(signal.SIGHUP)
    watched.process.send_signal(signal.SIGTERM)
    assert watched.end()[:2] == (0, ["term"])


def test_a_signal_from_before_the_watcher_counts() -> None:
    """The command that becomes the watcher holds signals back while it does."""

    def signalled() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        os.kill(os.getpid(), signal.SIGTERM)

    process = start(sys.executable, "-S", "-c", "import time; time.sleep(600)", before=signalled)
    assert process.communicate(timeout=60) == ("", "stopping: it was not ready yet\n")
    assert process.returncode == 0


def test_stopping_by_itself_is_a_failure() -> None:
    process = start(sys.executable, "-c", "pass")
    assert "the server stopped by itself" in process.communicate(timeout=60)[1]
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("code", "expected"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 128 + 9)]
)
def test_failures_keep_their_code(code: str, expected: int) -> None:
    process = start(sys.executable, "-c", code)
    process.communicate(timeout=60)
    assert process.returncode == expected


def test_a_killed_server_takes_its_workers_along() -> None:
    watched = started("ready", "never", close=0.05)
    os.kill(watched.numbers[0], signal.SIGKILL)
    assert watched.end()[0] == 128 + 9


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_a_killed_command_takes_its_server_along() -> None:
    """The workers, which vLLM's engine watches, are the plugin's business."""
    watched = started("ready", "never")
    watched.process.kill()
    deadline = time.monotonic() + 60
    while is_running(watched.numbers[0]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(watched.numbers[0])
    os.kill(watched.numbers[1], signal.SIGKILL)
    watched.process.communicate(timeout=60)
