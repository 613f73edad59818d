"""A real server, asked what it cannot answer: the request is refused with the reason, and the next one is answered."""

import json
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from random import Random
from typing import Any

import pytest
from openai import APIStatusError
from PIL import Image

from tests.serving.cases import RATIO, picture, reference
from tests.serving.clients import NUM_TOKENS, Client, Part, Said, as_prompt, data_url, encoded
from tests.serving.hosts import running_host
from tests.serving.reference import divprune_rule
from tests.serving.servers import Server

pytestmark = pytest.mark.timeout(400)

QUESTION: list[Part] = [picture(0), "word3 word4 word5"]
BUSY, WAITING, BLOCKS = "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"
WRITTEN = "vllm:generation_tokens_total"
AVIF = encoded(picture(1).resize((400, 300)), "AVIF")
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
    "text": (data_url(b"no picture"), "is not an image that Pillow can read"),
    "nothing": (data_url(b""), "is not an image that Pillow can read"),
    "half an AVIF": (data_url(AVIF[: len(AVIF) // 2]), "is not an image that Pillow can read"),
    "broken base64": ("data:image/png;base64,@@@", "Non-base64 digit"),
    "half a base64": (data_url(encoded(picture(1)))[:-3], "base64"),
    "no base64": ("data:image/png", "missing ',' separator"),
    # 400 million pixels in 50 kilobytes.
    "20,000 pixels wide and high": (data_url(encoded(Image.new("1", (20_000, 20_000)))), "scale it down first"),
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
    assert "is not an image that Pillow can read" in refused(client, [text.as_uri(), "word3"])
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
        *[({"num_keep": 10**digits}, "at most 9 of 36 tokens here, got 36") for digits in (2, 18, 19, 30, 400)],
        *[({"num_keep": wrong}, "num_keep must be") for wrong in (-1, -(10**30), 1e308, "3", "", True, [3], {})],
        ({"keep_ratio": 10**400}, "keep_ratio must be in (0, 1], got 1000"),
        # This one would stop the engine if it came through: larger pictures than the model reads.
        ({"size": {"shortest_edge": 168}, "crop_size": {"height": 168, "width": 168}}, "got crop_size, size"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_budgets_out_of_range_are_refused(kwargs: dict[str, Any], reason: str, client: Client) -> None:
    assert reason in refused(client, [picture(3), "word3"], kwargs)


@pytest.mark.parametrize(
    ("name", "reason"), [("keep_ratio", b"must be in (0, 1], got nan"), ("num_keep", b"must be an integer, got nan")]
)
def test_a_budget_that_is_not_a_number_is_refused(name: str, reason: bytes, server: Server, client: Client) -> None:
    """NaN is no JSON, but Python's parsers take it; the client would not send it."""
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url(encoded(picture(3)))}}]}
    asked = {"model": client.model, "messages": [message], "mm_processor_kwargs": {name: float("nan")}}
    request = urllib.request.Request(
        f"{server.address}/v1/chat/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    assert caught.value.code == 400
    assert reason in caught.value.read()


class Wire:
    """One connection to the server, kept for all requests, and the lines that each leaves in the log."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.connection = HTTPConnection("127.0.0.1", server.port, timeout=120)

    def post(self, path: str, body: bytes) -> tuple[int, str, list[str]]:
        """Status, answer and log lines."""
        begin = self.server.log.stat().st_size
        self.connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = self.connection.getresponse()
        said = response.read().decode(errors="replace")
        # The server has not hung up: the next request goes over the same connection.
        assert self.connection.sock is not None
        with self.server.log.open("rb") as log:
            log.seek(begin)
            lines = log.read().decode(errors="replace").splitlines()
        return response.status, said, lines


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    opened = Wire(server)
    yield opened
    opened.connection.close()


def chat(model: str, parts: Any, **settings: Any) -> bytes:
    asked = {"model": model, "messages": [{"role": "user", "content": parts}], "max_tokens": 2, "temperature": 0}
    return json.dumps(asked | settings).encode()


def image_part(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def video_part(url: Any) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url}}


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (image_part("file:///etc/passwd"), "must be a subpath"),
        (image_part("data:image/png,abc"), "Only base64 data URLs are supported"),
        (image_part("http://127.0.0.1:9/image.png"), "Cannot connect to host"),
        (image_part(UNREADABLE["half an AVIF"][0]), "is not an image that Pillow can read"),
        (video_part(data_url(JPEG)), ""),
        (video_part("data:video/mp4;base64,AAAA"), ""),
        ({"type": "painting", "painting": 1}, "painting"),
    ],
    ids=["file", "no base64", "nobody there", "AVIF", "image as video", "video", "unknown part"],
)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_fault_of_a_request_is_400_and_one_line_of_the_log(
    part: dict[str, Any], reason: str, is_streamed: bool, wire: Wire, client: Client
) -> None:
    body = chat(client.model, [part, {"type": "text", "text": "word3"}], stream=is_streamed)
    status, said, lines = wire.post("/v1/chat/completions", body)
    assert status == 400, said
    message = json.loads(said)["error"]["message"]
    assert message
    assert reason in message
    (line,) = lines
    assert "a request is refused (400)" in line
    assert reason in line


@pytest.mark.parametrize("behaviour", ["says nothing", "drips"])
def test_hosts_that_never_deliver_are_given_up(behaviour: str, wire: Wire, client: Client) -> None:
    with running_host(behaviour) as address:
        status, said, lines = wire.post("/v1/chat/completions", chat(client.model, [image_part(address)]))
    assert status == 400
    assert "did not arrive within 5 seconds (VLLM_IMAGE_FETCH_TIMEOUT of the server)" in said
    assert len(lines) == 1


ODD: list[Any] = [
    None, True, 0, -1, 10**30, 1.5, float("nan"), float("inf"), "", "a", "\x00", "\ud800", [], [[]], {}, {"a": []},
    [None], "word3 " * 20, "\u2028", {"type": "text"}, {"type": "text", "text": None}, {"url": 1}, "<image>",
    "<image>" * 5,
]  # fmt: skip
ADDRESSES = [
    *(address for address, _ in UNREADABLE.values()), data_url(JPEG), data_url(AVIF), "http://127.0.0.1:9/", "file:///",
    "file:///nowhere", "data:,", "data:;base64,", "http://[::1", "//", "blob:1", "data:video/jpeg;base64,AAAA",
]  # fmt: skip
PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/tokenize", "/detokenize"]


def any_body(draw: Random, model: str) -> dict[str, Any]:
    """A request as clients send them, parts of which are replaced, left out or put elsewhere."""
    address = draw.choice(ADDRESSES)
    parts: list[Any] = [
        draw.choice([image_part(address), video_part(address), image_part(draw.choice(ODD)), draw.choice(ODD)]),
        {"type": "text", "text": "word3"},
    ]
    body: dict[str, Any] = {
        "model": model, "messages": [{"role": draw.choice(["user", "system", "assistant", "tool"]), "content": parts}],
        "prompt": draw.choice(["word3", "word3 <image>", [3, 4], draw.choice(ODD)]), "max_tokens": 2, "temperature": 0,
        "input": [{"role": "user", "content": [{"type": "input_image", "image_url": address, "detail": "auto"}]}],
        "stream": draw.random() < 0.2, "tokens": [3, draw.choice([4, -1, 10**9, 10**30])],
    }  # fmt: skip
    if draw.random() < 0.4:
        body["mm_processor_kwargs"] = {draw.choice(["num_keep", "keep_ratio", "size"]): draw.choice(ODD)}
    if draw.random() < 0.3:
        modality, name = (
            draw.choice(["image", "video"]),
            draw.choice(["image_mode", "num_frames", "video_backend", "x"]),
        )
        body["media_io_kwargs"] = {modality: {name: draw.choice(ODD)}}
    for _ in range(draw.randrange(3)):
        spoil(draw, body)
    return body


def spoil(draw: Random, body: Any) -> None:
    """Replace a value, somewhere below."""
    places = list(body) if isinstance(body, dict) else list(range(len(body)))
    if places:
        place = draw.choice(places)
        if isinstance(body[place], (dict, list)) and draw.random() < 0.7:
            spoil(draw, body[place])
        elif place != "max_tokens":
            body[place] = draw.choice(ODD)


@pytest.mark.parametrize("seed", range(4))
def test_no_request_is_a_failure_of_the_server(seed: int, wire: Wire, client: Client) -> None:
    draw = Random(seed)
    statuses = Counter[int]()
    for _ in range(60):
        path, body = draw.choice(PATHS), json.dumps(any_body(draw, client.model)).encode()
        status, said, lines = wire.post(path, body)
        assert status < 500, (path, body[:2000], said)
        assert not [line for line in lines if "Traceback" in line], (path, body[:2000], lines)
        statuses[status] += 1
    # Some are right.
    assert statuses[200] > 0
    assert statuses[400] > 20


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'{"model": 1e999}', b"[" * 5000], ids=repr)
@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_is_no_request_is_refused(path: str, body: bytes, wire: Wire) -> None:
    status, said, lines = wire.post(path, body)
    assert 400 <= status < 500, said
    assert not [line for line in lines if "Traceback" in line]


def test_clients_that_hang_up_leave_nothing_behind(server: Server, client: Client) -> None:
    blocks = server.metric(BLOCKS)
    assert any(hung_up_while_busy(server, client) for _ in range(10)), "every answer was written before it was left"
    wait_until_idle(server)
    assert server.metric(BLOCKS) == blocks


def hung_up_while_busy(server: Server, client: Client) -> bool:
    """Leave eight answers at once; False where the machine wrote them all before their clients could leave."""
    streams = [client.stream([picture(number), "word3"], num_tokens=480) for number in range(8)]
    for stream in streams:
        next(iter(stream))
    busy = server.metric(BUSY) > 0
    for stream in streams:
        stream.close()
    return busy


def test_answers_are_not_written_for_clients_that_hung_up(server: Server, client: Client) -> None:
    """One by one: of several streams the first ones may end while the last ones are being asked for."""
    written = server.metric(WRITTEN)
    for number in range(8):
        stream = client.stream([picture(number), "word3"], num_tokens=480)
        next(iter(stream))
        stream.close()
    wait_until_idle(server)
    assert server.metric(WRITTEN) - written < 8 * 480 / 2


def wait_until_idle(server: Server) -> None:
    deadline = time.monotonic() + 30
    while server.metric(BUSY) + server.metric(WAITING) > 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert server.metric(BUSY) == server.metric(WAITING) == 0
