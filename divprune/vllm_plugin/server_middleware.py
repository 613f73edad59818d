"""Everything of ours that comes in front of vLLM's server, as the one middleware that it is started with."""

from typing import Any

from divprune.vllm_plugin.error_middleware import RefuseFaultyRequests
from divprune.vllm_plugin.lifetime_middleware import ReadyAndStopping
from divprune.vllm_plugin.reporting_middleware import ReportPruning

# From the application outwards: what stops the server must see the end of every response.
_INNER_TO_OUTER = (RefuseFaultyRequests, ReportPruning, ReadyAndStopping)


class ServerMiddleware:
    """Comes in front of vLLM's server, an ASGI application."""

    def __init__(self, app: Any) -> None:
        for middleware in _INNER_TO_OUTER:
            app = middleware(app)
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        await self._app(scope, receive, send)
