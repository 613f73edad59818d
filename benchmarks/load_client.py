"""Asks a server many questions, so many at once, and looks at a stopwatch."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

SECONDS_TO_ANSWER = 1800
SEEN, KEPT = "x-divprune-visual-tokens", "x-divprune-kept-visual-tokens"


@dataclass(frozen=True, slots=True)
class Timing:
    """One answered request.

    Attributes:
        ttft_seconds: From when it was sent until the first token came.
        end_to_end_seconds: Until the last one came.
        prompt_tokens: As the LLM read it.
        visual_tokens: Of its images and videos before pruning, as the server's headers say; 0 if they say nothing.
        kept_visual_tokens: Of those, the ones that the LLM read.
    """

    ttft_seconds: float
    end_to_end_seconds: float
    prompt_tokens: int
    visual_tokens: int
    kept_visual_tokens: int


def run_load(address: str, requests: Sequence[dict[str, Any]], concurrency: int) -> tuple[list[Timing], float]:
    """Ask all requests.

    Args:
        address: Of the server, without `/v1`.
        requests: Bodies for `/v1/chat/completions`; each is streamed.
        concurrency: How many are under way at any time.

    Returns:
        A timing for each request, and the seconds until all were answered.

    Raises:
        RuntimeError: One was refused, or ended without a word.
    """
    return asyncio.run(_run(address, requests, concurrency))


async def _run(address: str, requests: Sequence[dict[str, Any]], concurrency: int) -> tuple[list[Timing], float]:
    places = asyncio.Semaphore(concurrency)
    limits = aiohttp.ClientTimeout(total=SECONDS_TO_ANSWER)
    async with aiohttp.ClientSession(address, timeout=limits, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(request: dict[str, Any]) -> Timing:
            async with places:
                return await _ask(session, request)

        started = time.perf_counter()
        timings = await asyncio.gather(*map(ask, requests))
        return list(timings), time.perf_counter() - started


async def _ask(session: aiohttp.ClientSession, request: dict[str, Any]) -> Timing:
    body = {**request, "stream": True, "stream_options": {"include_usage": True}}
    started, first, prompt_tokens = time.perf_counter(), None, 0
    async with session.post("/v1/chat/completions", json=body) as response:
        if response.status != 200:
            raise RuntimeError(f"status {response.status}: {(await response.text())[:500]}")
        headers = response.headers
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line.removeprefix(b"data: "))
            if chunk.get("usage"):
                prompt_tokens = chunk["usage"]["prompt_tokens"]
            if first is None and any(choice["delta"].get("content") for choice in chunk["choices"]):
                first = time.perf_counter()
    if first is None or not prompt_tokens:
        raise RuntimeError("an answer ended without a word")
    ended = time.perf_counter()
    return Timing(first - started, ended - started, prompt_tokens, int(headers.get(SEEN, 0)), int(headers.get(KEPT, 0)))
