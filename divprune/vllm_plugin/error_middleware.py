"""Requests that vLLM's server would take for a failure of its own, although they name an image that cannot be had.

Such an image is missing, too large to be decoded, or at an address that does not answer. vLLM says 500 then; this
middleware of its server says 400.
"""

from typing import Any

from aiohttp import ClientError
from PIL.Image import DecompressionBombError
from starlette.responses import JSONResponse

from divprune.vllm_plugin import contracts

FAULTS_OF_REQUESTS = (DecompressionBombError, FileNotFoundError, IsADirectoryError, ClientError)


class RefuseUnreadablePictures:
    """Comes in front of vLLM's server, an ASGI application."""

    def __init__(self, app: Any) -> None:
        contracts.require(contracts.SERVER)
        from vllm.entrypoints.serve.exception_handling.error_response import create_error_response

        self._app, self._error_response = app, create_error_response

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        try:
            await self._app(scope, receive, send)
        except FAULTS_OF_REQUESTS as error:
            refusal = self._error_response(ValueError(f"an image cannot be read: {error}"))
            await JSONResponse(refusal.model_dump(), status_code=refusal.error.code)(scope, receive, send)
