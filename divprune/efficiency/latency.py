"""How long the prompt takes, with and without pruning.

image -> visual tokens -> selection -> prompt -> **LLM prefill**: everything up to the first answer token is timed.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from divprune.records import quantiles


@dataclass(frozen=True)
class Latency:
    """Repeated measurements of one duration.

    Attributes:
        samples: wall times in seconds, warm-up left out, in the order they were taken.
    """

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median in seconds."""
        return quantiles(self.samples)["median_seconds"]

    @property
    def p20(self) -> float:
        """20th percentile in seconds."""
        return quantiles(self.samples)["p20_seconds"]

    @property
    def p80(self) -> float:
        """80th percentile in seconds."""
        return quantiles(self.samples)["p80_seconds"]


def prefill_seconds(model: PreTrainedModel, inputs: Mapping[str, Any]) -> float:
    """Time one `generate` call of exactly one new token.

    That is the vision encoder, the selection if the model is pruned, and the language model's pass over the prompt:
    the part of time-to-first-token that the model owns. The processor (resizing, tokenising) is not in it.

    Args:
        model: any model with `generate`, pruned or not.
        inputs: what `generate` takes, on the model's device.

    Returns:
        Wall time in seconds, the device's queue empty before and after.
    """
    generate: Callable[..., Any] = model.generate  # type: ignore[assignment]
    _synchronize(model.device)
    start = time.perf_counter()
    generate(**inputs, max_new_tokens=1, min_new_tokens=1, do_sample=False, num_beams=1)
    _synchronize(model.device)
    return time.perf_counter() - start


def interleave(
    measurements: Sequence[Callable[[], float]], *, repeats: int, max_seconds: float = float("inf")
) -> list[Latency]:
    """Take several measurements in turn, so that what disturbs the machine disturbs all of them alike.

    Args:
        measurements: functions that measure once and return seconds. Each is called once for warm-up.
        repeats: rounds after the warm-up, at least 1.
        max_seconds: no new round starts after this much time; the first one always does.

    Returns:
        One `Latency` a measurement, in the order of `measurements`.

    Raises:
        ValueError: `repeats` is less than 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    started = time.perf_counter()
    for measure in measurements:
        measure()
    rounds: list[list[float]] = []
    while len(rounds) < repeats and (not rounds or time.perf_counter() - started < max_seconds):
        rounds.append([measure() for measure in measurements])
    return [Latency(samples) for samples in zip(*rounds, strict=True)]


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
