"""A real server, asked what it cannot answer: the request is refused with the reason, and the next one is answered."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError
from PIL import Image

from tests.serving.cases import RATIO, picture, reference
from tests.serving.clients import NUM_TOKENS, Client, Part, Said, as_prompt, data_url, encoded
from tests.serving.reference import divprune_rule
from tests.serving.servers import Server

pytestmark = pytest.mark.timeout(400)

QUESTION: list[Part] = [picture(0), "word3 word4 word5"]
BUSY, WAITING, BLOCKS = "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"
WRITTEN = "vllm:generation_tokens_total"
JPEG = encoded(picture(1).resize((400, 300)), "JPEG")


@pytest.fixture(scope="module")
def right_answer(server: Server) -> Said:
    return Client(server.address).ask(QUESTION)


@pytest.fixture(autouse=True)
def alive_and_right_afterwards(server: Server, right_answer: Said, client: Client) -> Iterator[None]:
    yield
    assert server.health() == 200
    assert client.ask(QUESTION) == right_answer


def refused(client: Client, parts: list[Part], kwargs: dict[str, Any] | None = None) -> str:
    """The reason for which a request gets a 4xx."""
    with pytest.raises(APIStatusError) as caught:
        client.ask(parts, kwargs)
    assert 400 <= caught.value.status_code < 500, caught.value
    return str(caught.value)


UNREADABLE = {
    "truncated JPEG": (data_url(JPEG[: len(JPEG) // 2]), "image file is truncated"),
    "truncated PNG": (data_url(encoded(picture(1))[:200]), "truncated"),
    "text": (data_url(b"no picture"), "cannot identify image file"),
    "nothing": (data_url(b""), "cannot identify image file"),
    "broken base64": ("data:image/png;base64,@@@", "Non-base64 digit"),
    "half a base64": (data_url(encoded(picture(1)))[:-3], "base64"),
    "no base64": ("data:image/png", "missing ',' separator"),
    # 400 million pixels in 50 kilobytes.
    "20,000 pixels wide and high": (data_url(encoded(Image.new("1", (20_000, 20_000)))), "exceeds limit"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_pictures_are_refused(name: str, client: Client) -> None:
    address, reason = UNREADABLE[name]
    assert reason in refused(client, [address, "word3"])
    # Good pictures beside it do not help.
    assert reason in refused(client, [picture(2), "word3", address])


def test_files_that_are_no_pictures_are_refused(client: Client, media_folder: Path, tmp_path: Path) -> None:
    text = media_folder / "text.png"
    text.write_text("no picture", encoding="utf-8")
    assert "cannot identify image file" in refused(client, [text.as_uri(), "word3"])
    assert "No such file" in refused(client, [(media_folder / "missing.png").as_uri(), "word3"])
    outside = tmp_path / "outside.png"
    outside.write_bytes(encoded(picture(1)))
    assert "--allowed-local-media-path" in refused(client, [outside.as_uri(), "word3"])


def test_too_many_pictures_are_refused(client: Client) -> None:
    assert "At most 3 image" in refused(client, [*(picture(number) for number in range(50)), "word3"])


def test_too_long_a_prompt_is_refused(client: Client) -> None:
    assert "maximum context length is 512" in refused(client, [picture(0), "word3 " * 600])


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 300), (20_000, 1), (20_000, 20), (20_000, 400)], ids=lambda size: "x".join(map(str, size))
)
def test_odd_pictures_are_answered_rightly(
    size: tuple[int, int], client: Client, checkpoint: Callable[[str], Path]
) -> None:
    parts: list[Part] = ["word3", picture(1).resize(size), "word4 word5"]
    text, media = as_prompt(parts)
    own = reference("llava", checkpoint("llava"))
    length, ids = own.answer(text, media, divprune_rule(RATIO), NUM_TOKENS)
    said = client.ask(parts)
    assert (said.prompt_tokens, said.ids) == (length, tuple(ids))


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        ({"keep_ratio": 0}, "keep_ratio must be in (0, 1], got 0"),
        ({"keep_ratio": 2}, "keep_ratio must be in (0, 1], got 2"),
        ({"keep_ratio": -0.1}, "keep_ratio must be in (0, 1], got -0.1"),
        ({"keep_ratio": "abc"}, "keep_ratio must be a number in (0, 1], got 'abc'"),
        ({"keep_ratio": None}, "exactly one of keep_ratio and num_keep"),
        ({"keep_ratio": [0.1]}, "keep_ratio must be a number"),
        ({"keep_ratio": 0.1, "num_keep": 3}, "exactly one of keep_ratio and num_keep"),
        ({"num_keep": 0}, "num_keep must be"),
        ({"num_keep": 1.5}, "num_keep must be"),
        ({"keep_ratio": 0.5}, "at most 9 of 36 tokens here, got 18"),
        ({"num_keep": 10}, "at most 9 of 36 tokens here, got 10"),
        # This one would stop the engine if it came through: larger pictures than the model reads.
        ({"size": {"shortest_edge": 168}, "crop_size": {"height": 168, "width": 168}}, "got crop_size, size"),
    ],
    ids=str,
)
def test_budgets_out_of_range_are_refused(kwargs: dict[str, Any], reason: str, client: Client) -> None:
    assert reason in refused(client, [picture(3), "word3"], kwargs)


def test_a_budget_that_is_not_a_number_is_refused(server: Server, client: Client) -> None:
    """NaN is no JSON, but Python's parsers take it; the client would not send it."""
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url(encoded(picture(3)))}}]}
    asked = {"model": client.model, "messages": [message], "mm_processor_kwargs": {"keep_ratio": float("nan")}}
    request = urllib.request.Request(
        f"{server.address}/v1/chat/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    assert caught.value.code == 400
    assert b"keep_ratio must be in (0, 1], got nan" in caught.value.read()


def test_clients_that_hang_up_leave_nothing_behind(server: Server, client: Client) -> None:
    blocks, written = server.metric(BLOCKS), server.metric(WRITTEN)
    streams = [client.stream([picture(number), "word3"], num_tokens=480) for number in range(8)]
    for stream in streams:
        next(iter(stream))
    assert server.metric(BUSY) > 0
    for stream in streams:
        stream.close()
    deadline = time.monotonic() + 30
    while server.metric(BUSY) + server.metric(WAITING) > 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert server.metric(BUSY) == server.metric(WAITING) == 0
    assert server.metric(BLOCKS) == blocks
    # They were not simply answered to the end.
    assert server.metric(WRITTEN) - written < 8 * 480 / 2
