"""What our middleware passes on between vLLM's HTTP server and its routes, message by message."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from divprune.vllm_plugin import reporting_middleware
from divprune.vllm_plugin.metrics import TokenMetrics
from divprune.vllm_plugin.server_middleware import ServerMiddleware

SCOPE = {"type": "http", "method": "POST", "path": "/v1/chat/completions"}
HUNG_UP = {"type": "http.disconnect"}
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}


class Connection:
    """A client: what has been sent to it, and whether it has hung up."""

    def __init__(self) -> None:
        self.sent, self._hung_up = list[Any](), asyncio.Event()

    async def receive(self) -> Any:
        await self._hung_up.wait()
        return HUNG_UP

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def hang_up(self) -> None:
        self._hung_up.set()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`serve(app)` has an application answer one request of a connection, behind our middleware."""
    monkeypatch.setattr(reporting_middleware, "TokenMetrics", lambda: TokenMetrics(CollectorRegistry()))

    def serve(app: Any) -> None:
        async def answer() -> None:
            connection = Connection()

            async def route(scope: Any, receive: Any, send: Any) -> None:
                await app(connection, receive, send)

            await ServerMiddleware(route)(SCOPE, connection.receive, connection.send)

        asyncio.run(asyncio.wait_for(answer(), 60))

    return serve


def test_each_chunk_of_a_stream_is_passed_on_when_it_is_sent(serve: Callable[..., None]) -> None:
    async def app(connection: Connection, receive: Any, send: Any) -> None:
        await send(START)
        assert connection.sent == [START]
        for number in range(3):
            chunk = {"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": number < 2}
            await send(chunk)
            assert connection.sent[-1] == chunk
        assert len(connection.sent) == 4

    serve(app)


def test_a_client_that_hangs_up_is_noticed_by_whoever_listens(serve: Callable[..., None]) -> None:
    """As vLLM does it: one task listens while a prompt is prepared, is cancelled, and the stream listens anew."""

    async def app(connection: Connection, receive: Any, send: Any) -> None:
        first = asyncio.create_task(receive())
        await asyncio.sleep(0)
        first.cancel()
        await send(START)
        second = asyncio.create_task(receive())
        await asyncio.sleep(0)
        assert not second.done()
        connection.hang_up()
        assert await second == HUNG_UP
        # Nor is it forgotten.
        assert await receive() == HUNG_UP
        assert first.cancelled()

    serve(app)
