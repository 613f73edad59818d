"""Requests of a load: an image of mixed sizes, a video or neither, and words; no two are the same."""

import base64
import io
import random
from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image

from divprune.efficiency.random_models import image_like

TEXT_TOKENS, OUTPUT_TOKENS = 64, 32
IMAGE_SIZES = ((224, 224), (448, 336), (560, 420), (672, 504))
"""Width and height: 64, 192, 300 and 432 visual tokens, in turns."""
VIDEO_FRAMES, VIDEO_SIZE = 8, (224, 224)
"""256 visual tokens: the vision encoder takes frames by twos."""
TRAFFICS = ("image", "video", "text")


def requests(traffic: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Return chat requests that have nothing in common, so that no cache answers.

    Args:
        traffic: One of `TRAFFICS`.
        count: How many.
        seed: The same requests come of the same one.
    """
    draw = random.Random(f"{traffic} {seed}")
    return [_request([*_media(traffic, number, draw), _words(draw)]) for number in range(count)]


def _request(parts: list[dict[str, Any]]) -> dict[str, Any]:
    message = {"role": "user", "content": parts}
    return {"messages": [message], "max_tokens": OUTPUT_TOKENS, "temperature": 0, "ignore_eos": True}


def _words(draw: random.Random) -> dict[str, Any]:
    return {"type": "text", "text": " ".join(f"w{draw.randrange(30_000)}" for _ in range(TEXT_TOKENS))}


def _media(traffic: str, number: int, draw: random.Random) -> Iterator[dict[str, Any]]:
    if traffic == "image":
        content = _jpeg(IMAGE_SIZES[number % len(IMAGE_SIZES)], draw)
        yield {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{content}"}}
    elif traffic == "video":
        content = ",".join(_jpeg(VIDEO_SIZE, draw) for _ in range(VIDEO_FRAMES))
        yield {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{content}"}}


def _jpeg(size: tuple[int, int], draw: random.Random) -> str:
    """Return an image that is smooth as photographs are, in base64."""
    noise = image_like(3, size[1], size[0], seed=draw.randrange(2**31))
    pixels = (128 + 48 * noise).clamp(0, 255).to(torch.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=90)
    return base64.b64encode(buffer.getvalue()).decode()
