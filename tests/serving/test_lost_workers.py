"""A server whose processes are killed tells its clients, ends with an exit code that says so, and starts again."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from openai import APIError, APIStatusError

from tests.serving.cases import RATIO, picture, reference
from tests.serving.clients import NUM_TOKENS, Client, Part, as_prompt
from tests.serving.reference import divprune_rule
from tests.serving.servers import SECONDS_TO_END, VLLM_SERVER, Server, running_server, wait_until_gone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

QUESTION: list[Part] = [picture(0), "word3 word4 word5"]


@pytest.fixture
def fresh_server(checkpoint: Callable[[str], Path], tmp_path: Path) -> Iterator[Server]:
    """The server of a test alone; requests may not ask for a budget."""
    with running_server(checkpoint("llava"), tmp_path / "log.txt", ("--keep-ratio", str(RATIO))) as started:
        text, media = as_prompt(QUESTION)
        own = reference("llava", checkpoint("llava"))
        length, ids = own.answer(text, media, divprune_rule(RATIO), NUM_TOKENS)
        said = Client(started.address).ask(QUESTION)
        assert (said.prompt_tokens, said.ids) == (length, tuple(ids))
        yield started


def ended(server: Server) -> int:
    """The exit code; nothing of the server may run on."""
    started = server.processes()
    code = server.process.wait(SECONDS_TO_END)
    wait_until_gone(started)
    return code


def test_a_killed_engine(fresh_server: Server) -> None:
    client = Client(fresh_server.address)
    with pytest.raises(APIStatusError, match="--trust-request-mm-kwargs") as refusal:
        client.ask(QUESTION, {"keep_ratio": RATIO})
    assert refusal.value.status_code == 400
    os.kill(fresh_server.process_named("EngineCore"), signal.SIGKILL)
    with pytest.raises(APIError):
        client.ask(QUESTION)
    assert fresh_server.health() in (503, None)
    assert ended(fresh_server) == 1
    assert "Error: the server stopped by itself" in fresh_server.told()


def test_a_worker_killed_while_it_answers(fresh_server: Server) -> None:
    """The fixture has just started the server again and seen it answer rightly."""
    stream = Client(fresh_server.address).stream(QUESTION, num_tokens=480)
    tokens = iter(stream)
    next(tokens)
    os.kill(fresh_server.process_named("VLLM::Worker"), signal.SIGKILL)
    with pytest.raises(APIError, match="EngineCore encountered an issue"):
        list(tokens)
    assert ended(fresh_server) == 1


def test_a_killed_front_end_leaves_no_engine(fresh_server: Server) -> None:
    started = fresh_server.processes()
    _, front_end = (number for number, command in started.items() if VLLM_SERVER in command)
    os.kill(front_end, signal.SIGKILL)
    assert fresh_server.process.wait(SECONDS_TO_END) == 128 + signal.SIGKILL
    wait_until_gone(started)
