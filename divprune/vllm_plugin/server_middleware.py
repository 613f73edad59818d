"""All that comes in front of vLLM's server where its model is pruned."""

from typing import Any

from divprune.vllm_plugin.error_middleware import RefuseUnreadablePictures
from divprune.vllm_plugin.reporting_middleware import ReportPruning


class PrunedServer:
    """An ASGI application around vLLM's: refuses as it should, and says what is pruned."""

    def __init__(self, app: Any) -> None:
        self._app = ReportPruning(RefuseUnreadablePictures(app))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        await self._app(scope, receive, send)
