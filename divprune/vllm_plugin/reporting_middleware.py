"""A server that says what it prunes: in the headers of its answers, at /v1/models and at /metrics."""

import json
from collections.abc import Sequence
from concurrent.futures import Executor
from contextvars import copy_context
from dataclasses import replace
from typing import Any

from divprune.errors import UnsupportedVersionError
from divprune.vllm_plugin import contracts
from divprune.vllm_plugin.metrics import TokenMetrics, share_selection_times
from divprune.vllm_plugin.positions import counts_tokens
from divprune.vllm_plugin.settings import PruningSettings
from divprune.vllm_plugin.token_counts import ItemCount, counted_items

VISUAL_TOKENS_HEADER = "x-divprune-visual-tokens"
KEPT_TOKENS_HEADER = "x-divprune-kept-visual-tokens"


class ReportPruning:
    """Comes in front of vLLM's server, an ASGI application."""

    def __init__(self, app: Any) -> None:
        contracts.require(contracts.SERVER)
        self._app, self._metrics = app, TokenMetrics()
        share_selection_times()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or prepare to."""
        if scope["type"] == "lifespan":
            # vLLM processes images in a thread of its own, which would not know whose they are.
            _carry_context(scope["app"].state.engine_client.renderer)
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["method"] == "GET" and scope["path"].endswith("/v1/models"):
            settings = _effective_settings(scope["app"].state.engine_client.model_config)
            await self._app(scope, receive, _ModelsWith(settings, send))
        elif scope["method"] == "POST":
            await self._counting(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _counting(self, scope: Any, receive: Any, send: Any) -> None:
        with counted_items() as items:

            async def send_with_headers(message: Any) -> None:
                # Prompts have been processed by the time an answer starts, be it a stream.
                if message["type"] == "http.response.start" and message["status"] == 200 and items:
                    self._metrics.add(items)
                    message["headers"] = [*message.get("headers", ()), *_headers(items)]
                await send(message)

            await self._app(scope, receive, send_with_headers)


class _ModelsWith:
    """Sends the list of models on when it is whole, with the settings in each entry."""

    def __init__(self, settings: PruningSettings, send: Any) -> None:
        self._settings, self._send = settings.overrides(), send
        self._start: Any = None
        self._body = b""

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body"):
            return
        if self._start["status"] == 200:
            models = json.loads(self._body)
            for card in models["data"]:
                card["divprune"] = self._settings
            self._body = json.dumps(models).encode()
        others = [(name, value) for name, value in self._start["headers"] if name.lower() != b"content-length"]
        headers = [*others, (b"content-length", str(len(self._body)).encode())]
        await self._send({**self._start, "headers": headers})
        await self._send({"type": "http.response.body", "body": self._body})


def _headers(items: Sequence[ItemCount]) -> list[tuple[bytes, bytes]]:
    seen, kept = sum(item.num_visual_tokens for item in items), sum(item.num_kept for item in items)
    return [
        (VISUAL_TOKENS_HEADER.encode(), str(seen).encode()),
        (KEPT_TOKENS_HEADER.encode(), str(kept).encode()),
    ]


def _effective_settings(model_config: Any) -> PruningSettings:
    """Return the settings, with the positions that came of them."""
    settings = PruningSettings.of(model_config.hf_config)
    keeps = counts_tokens(model_config) or model_config.uses_mrope
    return replace(settings, positions="original" if keeps else "compact")


def _carry_context(renderer: Any) -> None:
    """Have vLLM's renderer process images in the context of the request that shows them.

    Raises:
        UnsupportedVersionError: It has no thread for that, or not where it was.
    """
    executor = getattr(renderer, "_mm_executor", None)
    if not isinstance(executor, Executor):
        raise UnsupportedVersionError(contracts.refusal(["the renderer's `_mm_executor` is no executor"]))
    submit = executor.submit

    def submit_with_context(function: Any, /, *args: Any, **kwargs: Any) -> Any:
        return submit(copy_context().run, function, *args, **kwargs)

    executor.submit = submit_with_context  # type: ignore[method-assign]
