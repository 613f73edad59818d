"""The process that a server runs under, with short commands in place of servers."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
WATCHED = (sys.executable, "-m", "divprune.serving.watch", sys.executable, "-c")
# Says that it is ready, and ends with 0 when asked to, as vLLM does.
SERVER = """
import os, signal, sys, time
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda *_: sys.exit(0))
print(os.getpid(), flush=True)
time.sleep(60)
"""


def start(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*WATCHED, code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def started_server() -> tuple[subprocess.Popen[str], int]:
    process = start(SERVER)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def is_running(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopping_as_asked_is_no_failure(number: signal.Signals) -> None:
    process, server = started_server()
    process.send_signal(number)
    out, error = process.communicate(timeout=30)
    assert (process.returncode, out, error) == (0, "", "")
    assert not is_running(server)


def test_stopping_by_itself_is_one() -> None:
    process = start("pass")
    assert "the server stopped by itself" in process.communicate(timeout=30)[1]
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("code", "expected"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 128 + 9)]
)
def test_failures_keep_their_code(code: str, expected: int) -> None:
    process = start(code)
    process.communicate(timeout=30)
    assert process.returncode == expected


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_a_killed_command_takes_its_server_along() -> None:
    process, server = started_server()
    process.kill()
    process.communicate(timeout=30)
    deadline = time.monotonic() + 30
    while is_running(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(server)
