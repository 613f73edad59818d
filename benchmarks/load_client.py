"""Ask a server many questions, so many at once, and measure how long each takes."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

SECONDS_TO_ANSWER = 1800


@dataclass(frozen=True, slots=True)
class Timing:
    """One answered request.

    Attributes:
        ttft_seconds: From when it was sent until the first token came.
        end_to_end_seconds: Until the last one came.
        prompt_tokens: As the LLM read it.
    """

    ttft_seconds: float
    end_to_end_seconds: float
    prompt_tokens: int


def run_load(address: str, requests: Sequence[dict[str, Any]], concurrency: int) -> tuple[list[Timing], float]:
    """Ask all requests.

    Args:
        address: Of the server, without `/v1`.
        requests: Bodies for `/v1/chat/completions`; each is streamed, and must get all of its `max_tokens`.
        concurrency: How many run at any time.

    Returns:
        A timing for each request, and the seconds until all were answered.

    Raises:
        RuntimeError: One was refused, or not answered whole.
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
    body = request | {"stream": True, "stream_options": {"include_usage": True}, "return_token_ids": True}
    usage = {"prompt_tokens": 0, "completion_tokens": 0}
    started, first = time.perf_counter(), None
    async with session.post("/v1/chat/completions", json=body) as response:
        if response.status != 200:
            raise RuntimeError(f"a request got status {response.status}: {(await response.text())[:500]}")
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line.removeprefix(b"data: "))
            usage = chunk.get("usage") or usage
            # Not its text: a special token has none.
            if first is None and any(choice.get("token_ids") for choice in chunk.get("choices", ())):
                first = time.perf_counter()
    if first is None or usage["completion_tokens"] != request["max_tokens"]:
        raise RuntimeError(f"an answer has {usage['completion_tokens']} of {request['max_tokens']} tokens")
    return Timing(first - started, time.perf_counter() - started, usage["prompt_tokens"])
