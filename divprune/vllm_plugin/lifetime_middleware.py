"""A server's first and last moments: it says that it is ready, and stops without leaving clients waiting.

Stopped by a signal, vLLM ends its engine first, and whoever waits for an answer waits on. This middleware of its server
takes the signals over: the server closes its doors, answers what runs, and then ends the engine. What may not run any
longer is told so: its client gets an error in the stream, or status 503, and a closed connection.
"""

import asyncio
import signal
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Any, TypeVar

from starlette.responses import JSONResponse

from divprune.errors import UnsupportedVersionError
from divprune.vllm_plugin import contracts
from divprune.vllm_plugin.ready_line import ready_line
from divprune.vllm_plugin.watcher import CUT, tell_ready

_Result = TypeVar("_Result")
STOPPING = "the server is stopping; ask again where another one runs, or when it is back"
SECONDS_FOR_ENGINES = 4
"""To give back what they hold, before vLLM kills them."""
SECONDS_BETWEEN_LOOKS = 0.05


class ReadyAndStopping:
    """Comes in front of vLLM's server, an ASGI application."""

    def __init__(self, app: Any) -> None:
        contracts.require(contracts.SERVER)
        from vllm.entrypoints.serve.exception_handling.error_response import create_error_response

        self._app = app
        self._cut = asyncio.Event()
        error = create_error_response(
            STOPPING, err_type="ServiceUnavailableError", status_code=HTTPStatus.SERVICE_UNAVAILABLE
        )
        self._refusal = JSONResponse(error.model_dump(), HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "30"})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or begin to listen for signals."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
            return
        if scope["type"] == "lifespan":
            # Kept, since the event loop itself does not keep its tasks.
            self._telling = self._begin(scope["app"])
        await self._app(scope, receive, send)

    def _begin(self, app: Any) -> "asyncio.Task[None]":
        """Take over the signals, and say that the server is ready as soon as it listens."""
        server = getattr(app.state, "server", None)
        if server is None or not (hasattr(server, "should_exit") and hasattr(server, "started")):
            raise UnsupportedVersionError(contracts.refusal(["the server's `state.server` is none of uvicorn's"]))

        config = app.state.vllm_config

        def stop() -> None:
            # Nothing runs any more when vLLM ends its engines, so this is no time for requests.
            config.shutdown_timeout = min(config.shutdown_timeout, SECONDS_FOR_ENGINES)
            server.should_exit = True

        def cut() -> None:
            stop()
            self._cut.set()

        loop = asyncio.get_running_loop()
        for number, handler in ((signal.SIGINT, stop), (signal.SIGTERM, stop), (CUT, cut)):
            loop.add_signal_handler(number, handler)
        return loop.create_task(_tell(server, ready_line(app.state)))

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        response = _Response(receive, send, self._cut)
        try:
            await self._app(scope, response.receive, response.send)
        except Exception:
            # Whatever an interrupted request ends with.
            if not self._cut.is_set():
                raise
        if self._cut.is_set() and not response.is_complete:
            await response.end(self._refusal, scope)


class _Response:
    """A response that may be cut: the application is made to see a client that hung up, the client gets an end."""

    def __init__(self, receive: Any, send: Any, cut: asyncio.Event) -> None:
        self._receive, self._send, self._cut = receive, send, cut
        self._is_started = self._is_stream = self.is_complete = False

    async def receive(self) -> Any:
        return await _unless(self._cut, self._receive(), {"type": "http.disconnect"})

    async def send(self, message: Any) -> None:
        if self._cut.is_set():
            # ASGI's word for a client that hung up.
            raise OSError(STOPPING)
        if message["type"] == "http.response.start":
            self._is_started = True
            headers = {name.lower(): value for name, value in message.get("headers", ())}
            self._is_stream = headers.get(b"content-type", b"").startswith(b"text/event-stream")
        await self._send(message)
        if message["type"] == "http.response.body":
            self.is_complete = not message.get("more_body", False)

    async def end(self, refusal: JSONResponse, scope: Any) -> None:
        """Tell the client why there is no more, in what it takes for an event, or for an answer."""
        if not self._is_started:
            await refusal(scope, self._receive, self._send)
        elif self._is_stream:
            event = b"data: " + bytes(refusal.body) + b"\n\ndata: [DONE]\n\n"
            await self._send({"type": "http.response.body", "body": event, "more_body": False})
        # Half of another response is closed by the server.


async def _unless(event: asyncio.Event, wanted: Awaitable[_Result], otherwise: _Result) -> _Result:
    """Wait for a result, or for an event that makes it unnecessary."""
    result, happened = asyncio.ensure_future(wanted), asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait((result, happened), return_when=asyncio.FIRST_COMPLETED)
        return otherwise if event.is_set() else result.result()
    finally:
        result.cancel()
        happened.cancel()


async def _tell(server: Any, line: str) -> None:
    while not server.started:
        await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
    print(line, flush=True)
    tell_ready()
