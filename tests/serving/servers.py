"""Servers of pruned models, each a process of its own, as `divprune serve` starts them."""

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

SECONDS_TO_START = 360
SECONDS_TO_END = 30
PR_SET_PDEATHSIG = 1
ROOT = Path(__file__).parents[2]
VLLM_SERVER = "vllm.entrypoints.launchers.api_server.entry"
CLI = "from divprune.cli.main import app; app()"
MAX_IMAGES = 3
FLAGS = (
    "--dtype", "float32", "--enforce-eager", "--max-model-len", "512", "--max-num-seqs", "16", "--block-size", "32",
    "--disable-uvicorn-access-log", "--limit-mm-per-prompt", f'{{"image": {MAX_IMAGES}}}',
)  # fmt: skip


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log
        self.address = f"http://127.0.0.1:{port}"

    def health(self) -> int | None:
        """The status that /health answers; None if nothing answers."""
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=10) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all labels but the given ones."""
        with urllib.request.urlopen(f"{self.address}/metrics", timeout=10) as response:
            lines = response.read().decode().splitlines()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        found = [line for line in lines if line.startswith(f"{name}{{") and all(label in line for label in wanted)]
        assert found, f"no metric {name} {labels}"
        return sum(float(line.rpartition(" ")[2]) for line in found)

    def metric_label(self, name: str, label: str) -> str:
        """A label of a metric that has one sample."""
        with urllib.request.urlopen(f"{self.address}/metrics", timeout=10) as response:
            text = response.read().decode()
        (value,) = re.findall(rf'^{name}{{.*\b{label}="(.*?)"', text, flags=re.MULTILINE)
        return str(value)

    def plain_metric(self, name: str) -> float:
        """A metric without labels."""
        with urllib.request.urlopen(f"{self.address}/metrics", timeout=10) as response:
            lines = response.read().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def processes(self) -> dict[int, str]:
        """All processes of the server and their names, its own first."""
        return processes_of(self.process.pid)

    def process_named(self, part: str) -> int:
        return next(number for number, command in self.processes().items() if part in command)

    def wait_until_healthy(self) -> None:
        deadline = time.monotonic() + SECONDS_TO_START
        while self.health() != 200:
            assert self.process.poll() is None, f"the server ended:\n{self.told()}"
            assert time.monotonic() < deadline, f"no answer after {SECONDS_TO_START} s:\n{self.told()}"
            time.sleep(0.2)

    def told(self) -> str:
        """The end of its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-20_000:]

    def stop(self) -> int:
        """Ask it to stop, and see to it that nothing of it is left; its exit code."""
        started = self.processes() if self.process.poll() is None else {}
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        finally:
            for number in started:
                if _command(number):
                    os.kill(number, signal.SIGKILL)
            self.process.wait()


@contextmanager
def running_server(
    model: Path, log: Path, arguments: Sequence[str] | None, flags: Sequence[str] = ()
) -> Iterator[Server]:
    """The same, when it answers."""
    with launched_server(model, log, arguments, flags) as server:
        server.wait_until_healthy()
        yield server


@contextmanager
def launched_server(
    model: Path, log: Path, arguments: Sequence[str] | None, flags: Sequence[str] = ()
) -> Iterator[Server]:
    """`divprune serve MODEL ARGUMENTS -- FLAGS`, on a free port; without arguments, vLLM's own server, unpruned."""
    port = free_port()
    own = ["--port", str(port), *FLAGS, *flags]
    if arguments is None:
        command = [sys.executable, "-m", VLLM_SERVER, "--host", "127.0.0.1", "--model", str(model), *own]
    else:
        command = [sys.executable, "-c", CLI, "serve", str(model), *arguments, "--", *own]
    environment = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    with launched(command, port, log, environment) as server:
        yield server


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def running(command: Sequence[str], port: int, log: Path, environment: Mapping[str, str]) -> Iterator[Server]:
    """A server that a command starts and that answers, until it is no longer needed."""
    with launched(command, port, log, environment) as server:
        server.wait_until_healthy()
        yield server


@contextmanager
def launched(command: Sequence[str], port: int, log: Path, environment: Mapping[str, str]) -> Iterator[Server]:
    """A server that a command starts, in a process group of its own, until it is no longer needed."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=environment, stdout=out, stderr=out, cwd=ROOT, process_group=0, preexec_fn=_stop_with_parent
        )
    server = Server(process, port, log)
    try:
        yield server
    finally:
        server.stop()


def _stop_with_parent() -> None:
    """Run in the server's process before it becomes one: killed, who started it leaves no server behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def processes_of(number: int) -> dict[int, str]:
    """A process and all that it started, with their names."""
    found, new = {}, [number]
    while new:
        found.update({each: _command(each) for each in new})
        new = [child for parent in new for child in _children(parent)]
    return found


def wait_for(is_so: Callable[[], bool]) -> None:
    """Wait until something is so, as long as a start may take."""
    deadline = time.monotonic() + SECONDS_TO_START
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_until_gone(processes: Mapping[int, str]) -> None:
    """Wait until none of them runs any more."""
    deadline = time.monotonic() + SECONDS_TO_END
    while any(map(_is_running, processes)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not [command for number, command in processes.items() if _is_running(number)]


def _is_running(number: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _children(number: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{number}/task").glob("*/children"):
        found += map(int, task.read_text().split())
    return found


def _command(number: int) -> str:
    """How a process was started; nothing if it has ended."""
    try:
        return re.sub(r"\0", " ", Path(f"/proc/{number}/cmdline").read_text())
    except OSError:
        return ""
