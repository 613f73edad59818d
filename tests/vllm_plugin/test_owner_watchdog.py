"""Processes that watch the one that started them; vLLM is not needed here."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from divprune.vllm_plugin.owner_watchdog import FLAG, THREAD, end_engines_with_owner, watch_owner

# The owner of an engine, which says who it is and how many threads watch; a stubborn one ignores polite requests.
OWNER = """
import multiprocessing, os, signal, sys, threading, time
from divprune.vllm_plugin import owner_watchdog

def engine(is_stubborn):
    if is_stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    owner_watchdog.SECONDS_TO_END = 0.1
    owner_watchdog.watch_owner()
    owner_watchdog.watch_owner()
    print(os.getpid(), [thread.name for thread in threading.enumerate()].count(owner_watchdog.THREAD), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=engine, args=(sys.argv[1] == "stubborn",)).start()
    time.sleep(60)
"""


# An engine with a worker, each of which is asked to end; who does not, says so.
SIGNALLED = """
import multiprocessing, os, signal, sys, time
from divprune.vllm_plugin.owner_watchdog import watch_owner

def start(names):
    watch_owner()
    for number in (signal.SIGTERM, signal.SIGINT) if names[0] == "worker" else ():
        os.kill(os.getpid(), number)
    if names[1:]:
        child = multiprocessing.get_context("spawn").Process(target=start, args=(names[1:],))
        child.start()
        child.join()
    print(names[0], flush=True)
    if names[0] == "engine":
        os.kill(os.getpid(), signal.SIGTERM)
        print("engine goes on", flush=True)

if __name__ == "__main__":
    start(["owner", "engine", "worker"])
"""


def test_workers_end_with_their_engine_alone(tmp_path: Path) -> None:
    script = tmp_path / "signalled.py"
    script.write_text(SIGNALLED, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    end_engines_with_owner(environment)
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["worker", "engine", "owner"]


@pytest.fixture
def owner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """Runs an engine of a kind, asked to end with its owner or not."""
    script = tmp_path_factory.mktemp("owner") / "owner.py"
    script.write_text(OWNER, encoding="utf-8")
    kind, is_asked = request.param
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment.pop(FLAG, None)
    if is_asked:
        end_engines_with_owner(environment)
    command = [sys.executable, str(script), kind]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("owner", [("polite", True), ("stubborn", True)], indirect=True)
def test_an_engine_ends_with_its_owner(owner: subprocess.Popen[str]) -> None:
    assert owner.stdout is not None
    _, num_threads = map(int, owner.stdout.readline().split())
    assert num_threads == 1
    owner.kill()
    # The pipe is the engine's too, so its end is the engine's.
    assert owner.stdout.read() == ""


@pytest.mark.parametrize("owner", [("polite", False)], indirect=True)
def test_nothing_watches_unasked(owner: subprocess.Popen[str]) -> None:
    assert owner.stdout is not None
    engine, num_threads = map(int, owner.stdout.readline().split())
    os.kill(engine, signal.SIGKILL)
    assert num_threads == 0


def test_what_has_no_owner_watches_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert multiprocessing.parent_process() is None
    monkeypatch.setenv(FLAG, "1")
    watch_owner()
    assert THREAD not in [thread.name for thread in threading.enumerate()]


def test_a_start_method_that_was_chosen_is_kept() -> None:
    environment = {"VLLM_WORKER_MULTIPROC_METHOD": "fork", "PATH": "/bin"}
    end_engines_with_owner(environment)
    assert environment == {"VLLM_WORKER_MULTIPROC_METHOD": "fork", "PATH": "/bin", FLAG: "1"}
