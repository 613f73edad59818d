"""Clients of a server: questions about pictures, asked through the `openai` package."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from openai import OpenAI
from PIL import Image

NUM_TOKENS = 12
Part = str | Image.Image
"""A piece of a question: words, the address of a picture, or a picture."""


@dataclass(frozen=True)
class Said:
    """An answer.

    Attributes:
        prompt_tokens: length of the prompt as the language model read it, from `usage`.
        ids: tokens of the answer.
        text: the answer.
        margins: what the likeliest token's logit is above the second's, token by token; empty unless asked for.
    """

    prompt_tokens: int
    ids: tuple[int, ...]
    text: str
    margins: tuple[float, ...] = ()


class Client:
    def __init__(self, address: str) -> None:
        # The tests want to see failures, not to try again.
        self.openai = OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=120)

    @cached_property
    def model(self) -> str:
        return self.openai.models.list().data[0].id

    def ask(self, parts: Sequence[Part], kwargs: dict[str, Any] | None = None, margins: bool = False) -> Said:
        """Answer greedily; `kwargs` are the request's mm_processor_kwargs."""
        extra = {"logprobs": True, "top_logprobs": 2} if margins else {}
        response = self.openai.chat.completions.create(**self._request(parts, kwargs, NUM_TOKENS), **extra)
        choice: Any = response.choices[0]
        tops = [token.top_logprobs for token in choice.logprobs.content] if margins else []
        return Said(
            response.usage.prompt_tokens,
            tuple(choice.token_ids),
            choice.message.content,
            tuple(first.logprob - second.logprob for first, second in tops),
        )

    def ask_streaming(self, parts: Sequence[Part], kwargs: dict[str, Any] | None = None) -> Said:
        ids: list[int] = []
        text, length = "", 0
        for chunk in self.stream(parts, kwargs):
            if chunk.usage:
                length = chunk.usage.prompt_tokens
            for choice in chunk.choices:
                text += choice.delta.content or ""
                ids += getattr(choice, "token_ids", None) or []
        return Said(length, tuple(ids), text)

    def stream(self, parts: Sequence[Part], kwargs: dict[str, Any] | None = None, num_tokens: int = NUM_TOKENS) -> Any:
        request = self._request(parts, kwargs, num_tokens)
        return self.openai.chat.completions.create(**request, stream=True, stream_options={"include_usage": True})

    def _request(self, parts: Sequence[Part], kwargs: dict[str, Any] | None, num_tokens: int) -> dict[str, Any]:
        extra: dict[str, Any] = {"ignore_eos": True, "return_token_ids": True}
        if kwargs is not None:
            extra["mm_processor_kwargs"] = kwargs
        messages = [{"role": "user", "content": [content(part) for part in parts]}]
        return {
            "model": self.model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": num_tokens,
            "extra_body": extra,
        }


def content(part: Part) -> dict[str, Any]:
    """A part of a message."""
    if isinstance(part, str) and not part.startswith(("data:", "file:")):
        return {"type": "text", "text": part}
    return {"type": "image_url", "image_url": {"url": part if isinstance(part, str) else data_url(encoded(part))}}


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def as_prompt(parts: Sequence[Part]) -> tuple[str, dict[str, list[Image.Image]]]:
    """What the checkpoint's chat template makes of a question, and the pictures."""
    spelt = "".join(f"{part} " if isinstance(part, str) else "<image> " for part in parts)
    return f"word0 {spelt}word1", {"image": [part for part in parts if not isinstance(part, str)]}
