"""Our middleware's ways to end, with vLLM's HTTP server in front of an application of the test's."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from vllm.entrypoints.launchers.launcher import NoSignalServer

from divprune.errors import UnsupportedVersionError
from divprune.vllm_plugin import lifetime_middleware
from divprune.vllm_plugin.lifetime_middleware import SECONDS_FOR_ENGINES, STOPPING, ReadyAndStopping
from divprune.vllm_plugin.ready_line import KVCache, gain, ready_line
from divprune.vllm_plugin.watcher import CUT

GRACE = 20


class Running:
    """A server that is up; `go_on` lets its streams end, `seen` is what its handlers saw."""

    def __init__(self) -> None:
        self.go_on, self.seen = asyncio.Event(), list[str]()
        routes = [
            Route(f"/{name}", getattr(self, name), methods=["POST"]) for name in ("echo", "stream", "half", "wait")
        ]
        self.app = Starlette(routes=routes)
        self.app.add_middleware(ReadyAndStopping)
        self.app.state.vllm_config = SimpleNamespace(shutdown_timeout=GRACE)

    async def echo(self, request: Request) -> Response:
        return Response(await request.body())

    async def stream(self, request: Request) -> Response:
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def half(self, request: Request) -> Response:
        return StreamingResponse(self._events(), media_type="text/plain")

    async def _events(self) -> AsyncIterator[str]:
        try:
            yield "data: first\n\n"
            await self.go_on.wait()
            yield "data: last\n\n"
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise

    async def wait(self, request: Request) -> Response:
        """As vLLM's handlers of requests without a stream: they work, and look whether the client is still there."""
        await request.body()
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self.seen.append("hung up")
        return JSONResponse(None)


@asynccontextmanager
async def running() -> AsyncIterator[tuple[Running, httpx.AsyncClient, "asyncio.Task[None]"]]:
    own = Running()
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        own.app.state.server = server = NoSignalServer(uvicorn.Config(own.app, lifespan="on", log_level="warning"))
        serving = asyncio.create_task(server.serve([bound]))
        while not server.started:
            assert not serving.done()
            await asyncio.sleep(0.01)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{bound.getsockname()[1]}", timeout=60) as client:
            yield own, client, serving
            await asyncio.wait_for(serving, 60)


@pytest.fixture(autouse=True)
def line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifetime_middleware, "ready_line", lambda state: "ready: here")


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 120))


def send(number: int) -> None:
    os.kill(os.getpid(), number)


async def first_of(response: httpx.Response) -> tuple[bytes, AsyncIterator[bytes]]:
    parts = response.aiter_raw()
    return await anext(parts), parts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_what_runs_is_answered_and_nothing_new(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    async def test() -> None:
        async with running() as (own, client, serving):
            assert (await client.post("/echo", content=b"as it is")).content == b"as it is"
            async with client.stream("POST", "/stream") as response:
                first, parts = await first_of(response)
                send(number)
                send(number)
                while own.app.state.server.servers and own.app.state.server.servers[0].is_serving():
                    await asyncio.sleep(0.01)
                with pytest.raises(httpx.ConnectError):
                    await client.post("/echo", content=b"new")
                assert not serving.done()
                own.go_on.set()
                assert first + b"".join([part async for part in parts]) == b"data: first\n\ndata: last\n\n"
        assert own.app.state.vllm_config.shutdown_timeout == SECONDS_FOR_ENGINES
        assert own.seen == []

    run(test)
    assert capsys.readouterr().out == "ready: here\n"


@pytest.mark.parametrize("before", [(), (signal.SIGTERM,)], ids=["at once", "past the grace"])
def test_what_may_not_run_on_is_told(before: tuple[int, ...]) -> None:
    async def test() -> None:
        async with running() as (own, client, _):
            waiting = asyncio.create_task(client.post("/wait", content=b"x"))
            async with client.stream("POST", "/stream") as stream, client.stream("POST", "/half") as half:
                _, events = await first_of(stream)
                _, rest = await first_of(half)
                for number in (*before, CUT):
                    send(number)
                    await asyncio.sleep(0)
                told = b"".join([part async for part in events])
                with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
                    [part async for part in rest]
            refused = await waiting
        event, done, _ = told.decode().split("\n\n")
        assert done == "data: [DONE]"
        assert httpx.Response(200, text=event.removeprefix("data: ")).json() == refused.json()
        assert refused.status_code == refused.json()["error"]["code"] == 503
        assert refused.json()["error"]["message"] == STOPPING
        assert refused.headers["retry-after"]
        assert sorted(own.seen) == ["cancelled", "cancelled", "hung up"]

    run(test)


def test_a_body_that_never_comes_holds_nothing_up() -> None:
    async def test() -> None:
        async with running() as (own, client, _):
            reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
            writer.write(b"POST /echo HTTP/1.1\r\nHost: here\r\nContent-Length: 10\r\n\r\n12345")
            while not own.app.state.server.server_state.tasks:
                await asyncio.sleep(0.01)
            send(CUT)
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
            writer.close()

    run(test)


def test_another_server_is_refused() -> None:
    async def test() -> None:
        own = Running()
        with pytest.raises(UnsupportedVersionError, match=r"state\.server"):
            ReadyAndStopping(own.app)._begin(own.app)

    run(test)


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ({"host": "127.0.0.1"}, "http://127.0.0.1:8000/v1"),
        ({"host": "::1", "port": 9000}, "http://[::1]:9000/v1"),
        ({"host": None, "ssl_certfile": "cert.pem"}, "https://0.0.0.0:8000/v1"),
        ({"host": "127.0.0.1", "uds": "/run/s"}, "unix:/run/s"),
    ],
)
def test_the_address_is_vllms(given: dict[str, Any], address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As vLLM has read its flags and its file of `--config`."""
    monkeypatch.setattr("divprune.vllm_plugin.ready_line._largest_items", lambda config: [("image", 300, 32)])
    arguments = {"port": 8000, "uds": None, "ssl_certfile": None, "ssl_keyfile": None} | given
    config = SimpleNamespace(
        cache_config=SimpleNamespace(kv_cache_size_tokens=1024, block_size=32),
        model_config=SimpleNamespace(max_model_len=512, served_model_name="some/model"),
        scheduler_config=SimpleNamespace(max_num_seqs=256),
    )
    line = ready_line(SimpleNamespace(args=SimpleNamespace(**arguments), vllm_config=config))
    assert line.startswith(
        f"ready: {address} serves some/model; the largest image keeps 32 of its 300 tokens; 6 requests"
    )


CACHE = KVCache(num_tokens=1024, block_size=32, max_model_len=512)


@pytest.mark.parametrize(("length", "number"), [(1, 32), (32, 32), (33, 16), (512, 2), (513, 0)])
def test_requests_take_whole_blocks(length: int, number: int) -> None:
    assert CACHE.num_requests(length) == number


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # 32 + 128 tokens are five blocks of 32 of them, 300 + 128 are fourteen.
        (("image", 300, 32, CACHE, 256), "6 requests of such an image and 128 text tokens fit the KV cache at once, 2"),
        (
            ("video", 300, 32, CACHE, 4),
            "a video and 128 text tokens fit the KV cache at once (--max-num-seqs lets 4 run)",
        ),
        (("video", 500, 32, CACHE, 4), "run), none unpruned"),
    ],
)
def test_the_gain(arguments: tuple[Any, ...], expected: str) -> None:
    assert expected in gain(*arguments)
