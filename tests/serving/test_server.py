"""A real server that `divprune serve` started, asked over HTTP: good questions."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.serving.cases import RATIO, SMALL_RATIO, picture, reference
from tests.serving.clients import NUM_TOKENS as ANSWER_LENGTH
from tests.serving.clients import Client, Part, Said, as_prompt, encoded
from tests.serving.reference import divprune_rule
from tests.serving.servers import Server

pytestmark = pytest.mark.timeout(400)

NUM_CLIENTS = 16
QUESTIONS: list[list[Part]] = [
    ["word3 word4 word5"],
    [picture(0), "word3 word4 word5"],
    ["word6", picture(1), "word7 word8", picture(2)],
    [picture(3), picture(4), "word9", picture(5), "word10 word11"],
    [picture(6), "word12"],
]


@pytest.fixture
def wanted(checkpoint: Callable[[str], Path]) -> Callable[..., tuple[int, tuple[int, ...]]]:
    """What the hand-made reference says: the length of the prompt, and the tokens of the answer."""

    def answer(parts: list[Part], ratio: float = RATIO) -> tuple[int, tuple[int, ...]]:
        text, media = as_prompt(parts)
        own = reference("llava", checkpoint("llava"))
        length, ids = own.answer(text, media, divprune_rule(ratio), ANSWER_LENGTH)
        return length, tuple(ids)

    return answer


def seen(said: Said) -> tuple[int, tuple[int, ...]]:
    return said.prompt_tokens, said.ids


@pytest.mark.parametrize("parts", QUESTIONS)
def test_answers_equal_the_reference(parts: list[Part], client: Client, wanted: Any) -> None:
    assert seen(client.ask(parts)) == wanted(parts)


def test_it_said_what_it_gives(server: Server) -> None:
    (line,) = [line for line in server.log.read_text(encoding="utf-8").splitlines() if line.startswith("ready: ")]
    assert line.startswith(f"ready: {server.address}/v1 serves ")
    assert "; the largest image keeps 9 of its 36 tokens; " in line
    # vLLM's own count of a block's tokens: 9 + 128 take five blocks of 32, and 36 + 128 take six.
    tokens = 32 * int(server.metric_label("vllm:cache_config_info", "num_gpu_blocks"))
    assert f"; {tokens // (5 * 32)} requests of such an image and 128 text tokens fit the KV cache at once " in line
    assert line.endswith(f" (--max-num-seqs lets 16 run), {tokens // (6 * 32)} unpruned")


def test_usage_shows_the_shorter_prompt(client: Client) -> None:
    # 9 of 36 tokens of each of three pictures, three words, and two of the template.
    assert client.ask(QUESTIONS[3]).prompt_tokens == 3 * 9 + 3 + 2
    # 4 of 36.
    assert client.ask(QUESTIONS[3], {"keep_ratio": SMALL_RATIO}).prompt_tokens == 3 * 4 + 3 + 2


@pytest.mark.parametrize("parts", QUESTIONS)
def test_streaming_says_the_same(parts: list[Part], client: Client) -> None:
    assert client.ask_streaming(parts) == client.ask(parts)


def test_pictures_in_files(client: Client, media_folder: Path) -> None:
    path = media_folder / "picture.png"
    path.write_bytes(encoded(picture(3)))
    assert client.ask([path.as_uri(), "word3"]) == client.ask([picture(3), "word3"])


@pytest.mark.parametrize("parts", QUESTIONS)
def test_a_request_asks_for_less(parts: list[Part], client: Client, wanted: Any) -> None:
    assert seen(client.ask(parts, {"keep_ratio": SMALL_RATIO})) == wanted(parts, SMALL_RATIO)
    # Caches keep the two apart.
    assert seen(client.ask(parts)) == wanted(parts)


def test_a_request_asks_for_a_number(client: Client, wanted: Any) -> None:
    parts = [picture(0), "word3 word4 word5"]
    # round(36 * 0.1) = 4
    assert seen(client.ask(parts, {"num_keep": 4})) == wanted(parts, SMALL_RATIO)


def test_many_clients_at_once_get_the_answers_they_get_alone(server: Server, client: Client) -> None:
    jobs = [(parts, kwargs) for parts in QUESTIONS for kwargs in (None, {"keep_ratio": SMALL_RATIO})]
    alone = [client.ask(*job) for job in jobs]

    def ask_all(number: int) -> list[Said]:
        """Each in another order, half of them streaming."""
        own = Client(server.address)
        ask = own.ask_streaming if number % 2 else own.ask
        order = [(place + number) % len(jobs) for place in range(len(jobs))]
        answers = {place: ask(*jobs[place]) for place in order}
        return [answers[place] for place in range(len(jobs))]

    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        for answers in pool.map(ask_all, range(NUM_CLIENTS)):
            assert answers == alone


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left(server: Server) -> Iterator[None]:
    yield
    assert server.metric("vllm:num_requests_running") + server.metric("vllm:num_requests_waiting") == 0
