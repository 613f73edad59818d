"""A real server that is asked to stop: while it starts, while nobody asks, while it answers."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import APIConnectionError, APIError, InternalServerError

from tests.serving.cases import picture
from tests.serving.clients import Client
from tests.serving.servers import (
    SECONDS_TO_END,
    VLLM_SERVER,
    Server,
    launched_server,
    wait_for,
    wait_until_gone,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ARGUMENTS = ("--keep-ratio", "0.25", "--grace", "300")
FLAGS = ("--max-model-len", "4096")
NUM_STREAMS = 4


@pytest.fixture
def launch(checkpoint: Callable[[str], Path], tmp_path: Path) -> Iterator[Server]:
    """A server that has just been started, in a process group of its own."""
    with launched_server(checkpoint("llava"), tmp_path / "log.txt", ARGUMENTS, FLAGS) as server:
        yield server


@pytest.fixture
def server(launch: Server) -> Server:
    """The same, when it answers."""
    launch.wait_until_healthy()
    return launch


def engine_group(server: Server) -> int:
    """The process group that vLLM's processes share."""
    wait_for(lambda: any(VLLM_SERVER in command for command in list(server.processes().values())[1:]))
    return [number for number, command in server.processes().items() if VLLM_SERVER in command][1]


@contextmanager
def stopping(server: Server) -> Iterator[None]:
    """Ask the server to stop in the block; it ends with 0, and no process of it runs on."""
    started, group = server.processes(), engine_group(server)
    yield
    assert server.process.wait(SECONDS_TO_END) == 0, server.told()
    wait_until_gone(started)
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


def begun(server: Server, num_tokens: int) -> list[Iterator[Any]]:
    """Streams whose first tokens are there."""
    streams = [
        iter(Client(server.address).stream([picture(0), "word3"], num_tokens=num_tokens)) for _ in range(NUM_STREAMS)
    ]
    for stream in streams:
        next(stream), next(stream)
    return streams


def is_refused(client: Client) -> bool:
    try:
        client.openai.models.list()
    except APIConnectionError:
        return True
    return False


@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["leader", "group"])
@pytest.mark.parametrize(("state", "number"), [("api_server", signal.SIGTERM), ("EngineCore", signal.SIGINT)])
def test_while_it_starts(launch: Server, send: Callable[[int, int], None], state: str, number: int) -> None:
    """While vLLM is imported, and while its engine loads the model."""
    engine_group(launch)
    wait_for(lambda: any(state in command for command in list(launch.processes().values())[1:]))
    with stopping(launch):
        send(launch.process.pid, number)
    assert "ready:" not in launch.told()
    assert "stopping: it was not ready yet" in launch.told()


def test_while_nobody_asks(server: Server) -> None:
    Client(server.address).ask(["word3"])
    with stopping(server):
        os.killpg(server.process.pid, signal.SIGINT)


def test_streams_that_run_are_answered(server: Server) -> None:
    late = Client(server.address)
    late.openai.models.list()
    streams = begun(server, num_tokens=500)
    with stopping(server):
        os.killpg(server.process.pid, signal.SIGTERM)
        wait_for(lambda: is_refused(late))
        for stream in streams:
            chunks = list(stream)
            reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
            assert reasons == ["length"]
            assert chunks[-1].usage.completion_tokens == 500
    assert "Traceback" not in server.told()


def test_a_second_signal_ends_them(server: Server) -> None:
    streams = begun(server, num_tokens=3900)
    late = Client(server.address)
    with stopping(server):
        server.process.send_signal(signal.SIGINT)
        wait_for(lambda: is_refused(late))
        server.process.send_signal(signal.SIGINT)
        for stream in streams:
            with pytest.raises(APIError, match="the server is stopping") as told:
                list(stream)
            assert not isinstance(told.value, InternalServerError)
    assert "Traceback" not in server.told()
