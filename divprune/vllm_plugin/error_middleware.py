"""Requests that vLLM's server would take for a failure of its own, although they ask for what cannot be done.

Some name a medium that cannot be had, or a modality that the chat template has no place for; vLLM answers 500 or 501,
writes a traceback and closes the connection. This middleware of its server answers 400 with the reason, and leaves one
line in the log for each refused request.

    request -> this -> vLLM's routes -> rendering (media, template, processor) -> engine

What fails while a request is rendered, before an engine has seen it, is the request's fault; what fails later is not.
"""

import json
import logging
import os
from types import TracebackType
from typing import Any

from starlette.responses import JSONResponse

from divprune.errors import first_line, root_cause
from divprune.vllm_plugin import contracts

RENDERING = ("vllm.renderers.", "vllm.multimodal.", "divprune.vllm_plugin.media_connector")
"""Modules that read requests."""
_NOT_IMPLEMENTED, _BAD_REQUEST = 501, 400
# Below vLLM's logger, whose handlers it shares.
_LOG = logging.getLogger("vllm.divprune")


class RefuseFaultyRequests:
    """Comes in front of vLLM's server, an ASGI application."""

    def __init__(self, app: Any) -> None:
        contracts.require(contracts.SERVER)
        from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
        from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY

        from divprune.vllm_plugin.media_connector import RefusingConnector

        self._app, self._error_response = app, create_error_response
        # In place of vLLM's own, in the server's process alone.
        MEDIA_CONNECTOR_REGISTRY.register("http")(RefusingConnector)
        # A client that waits is told at once why; it may try again itself.
        os.environ.setdefault("VLLM_MEDIA_FETCH_MAX_RETRIES", "1")
        # What FFmpeg thinks of a damaged video is in none of the log's lines; the refusal is in one.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        for handler in logging.getLogger("vllm").handlers:
            handler.addFilter(without_traceback_of_refusals)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            await self._app(scope, receive, answer.send)
        except Exception as error:
            if answer.has_begun or not _came_up_while_rendering(error):
                raise
            refusal = self._error_response(ValueError(first_line(root_cause(error))))
            await JSONResponse(refusal.model_dump(), status_code=_BAD_REQUEST)(scope, receive, answer.send)


class _Answer:
    """What is sent to the client; refusals are held back until they are whole, corrected and logged."""

    def __init__(self, send: Any) -> None:
        self._send = send
        self._start: dict[str, Any] | None = None
        self._body = b""
        self.has_begun = False

    async def send(self, message: Any) -> None:
        """Pass a message of the application on."""
        self.has_begun = True
        if message["type"] == "http.response.start" and message["status"] >= _BAD_REQUEST:
            self._start = message
        elif self._start is None:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                start, body = _corrected(self._start, self._body)
                self._start = None
                await self._send(start)
                await self._send({"type": "http.response.body", "body": body})


def _corrected(start: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """Log a refusal, and make what the model cannot do (501) a fault of the request."""
    try:
        content = json.loads(body)
        error = content["error"]
        message = str(error["message"])
    except (ValueError, TypeError, KeyError):
        return start, body
    if start["status"] == _NOT_IMPLEMENTED:
        error |= {"code": _BAD_REQUEST, "type": "BadRequestError"}
        body = json.dumps(content).encode()
        kept = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
        start = start | {"status": _BAD_REQUEST, "headers": [*kept, (b"content-length", str(len(body)).encode())]}
    if start["status"] < 500:
        _LOG.warning("a request is refused (%d): %s", start["status"], " ".join(message.split())[:500])
    return start, body


def without_traceback_of_refusals(record: logging.LogRecord) -> bool:
    """Make one line of the page that some routes, and all streams, log for a request that they refuse."""
    from vllm.exceptions import VLLMClientError

    error = record.exc_info[1] if record.exc_info else None
    if error is not None and (isinstance(error, VLLMClientError) or _came_up_while_rendering(error)):
        record.msg, record.args = f"{record.getMessage()} {first_line(root_cause(error))}", ()
        record.exc_info = record.exc_text = None
    return True


def _came_up_while_rendering(error: BaseException) -> bool:
    """Tell whether an exception was raised by what reads requests, and not by an engine."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).startswith(RENDERING):
            return True
        trace = trace.tb_next
    return False
