"""One call of `generate`, taken apart: language model's prefill, first token, decoding.

image -> visual tokens -> selection -> prompt -> **LLM prefill -> decoding**. The times come from a streamer, which
`generate` hands every token to, and from hooks on the language model; the model itself runs as it always does.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.generation.streamers import BaseStreamer


@dataclass(frozen=True)
class GenerationTiming:
    """Wall times of one call of `generate`, in seconds.

    Attributes:
        prefill_seconds: the language model's pass over the prompt, without encoder and selection.
        ttft_seconds: from the call to the first token: encoder, selection and prefill.
        decode_seconds: from the first token to the last.
        end_to_end_seconds: the whole call.
        num_new_tokens: tokens generated.
    """

    prefill_seconds: float
    ttft_seconds: float
    decode_seconds: float
    end_to_end_seconds: float
    num_new_tokens: int

    @property
    def decode_seconds_per_token(self) -> float:
        """Mean time of a token after the first; needs two tokens at least."""
        return self.decode_seconds / (self.num_new_tokens - 1)


def time_generation(model: PreTrainedModel, inputs: Mapping[str, Any], num_new_tokens: int) -> GenerationTiming:
    """Time one greedy call of `generate`, pruned or not.

    Args:
        model: any model with `generate` and a decoder.
        inputs: what `generate` takes, on the model's device; one row.
        num_new_tokens: how many tokens are generated, at least 1, whatever they are.

    Raises:
        ValueError: `num_new_tokens` is less than 1.
    """
    if num_new_tokens < 1:
        raise ValueError(f"num_new_tokens must be at least 1, got {num_new_tokens}")
    generate: Callable[..., Any] = model.generate  # type: ignore[assignment]
    clock = _TokenClock(model.device)
    with _first_pass_timed(model, clock) as prefill:
        started = clock.now()
        generate(
            **inputs,
            max_new_tokens=num_new_tokens,
            min_new_tokens=num_new_tokens,
            do_sample=False,
            num_beams=1,
            streamer=clock,
        )
        finished = clock.now()
    # The first thing that a streamer gets is the prompt.
    tokens = clock.times[1:]
    return GenerationTiming(
        prefill_seconds=prefill[1] - prefill[0],
        ttft_seconds=tokens[0] - started,
        decode_seconds=tokens[-1] - tokens[0],
        end_to_end_seconds=finished - started,
        num_new_tokens=len(tokens),
    )


def seconds_of(function: Callable[[], object], device: torch.device) -> float:
    """Wall time of a call, the device's queue empty before and after."""
    clock = _TokenClock(device)
    started = clock.now()
    function()
    return clock.now() - started


class _TokenClock(BaseStreamer):
    """Notes when each token is there.

    Attributes:
        times: of everything `generate` handed over, in seconds.
    """

    def __init__(self, device: torch.device) -> None:
        self.times: list[float] = []
        self._device = device

    def put(self, value: Tensor) -> None:
        """Return a token, on the CPU by now, so that the device has finished it."""
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing more comes."""

    def now(self) -> float:
        """Return the time, once the device has done its work."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        elif self._device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()


@contextmanager
def _first_pass_timed(model: PreTrainedModel, clock: _TokenClock) -> Iterator[list[float]]:
    """Yield a list that will hold begin and end of the decoder's first pass."""
    times: list[float] = []
    decoder: Any = model.get_decoder()

    def note(*_: Any) -> None:
        times.append(clock.now())
        if len(times) == 2:
            remove()

    def remove() -> None:
        for handle in handles:
            handle.remove()

    handles = [decoder.register_forward_pre_hook(note), decoder.register_forward_hook(note)]
    try:
        yield times
    finally:
        remove()
