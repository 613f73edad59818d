"""What one call of `generate` took, and what it saw."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from divprune.huggingface import PruningReport


@dataclass(frozen=True, slots=True)
class CallMeasurement:
    """One call of `generate`.

    Attributes:
        num_prompts: rows of the batch.
        num_items: images and videos that were pruned.
        num_visual_tokens: of these, before pruning; 0 if nothing was pruned.
        num_kept: of these, after pruning.
        num_new_tokens: generated, all rows together.
        encoding_seconds: the vision encoder's part; 0 if nothing was pruned.
        selection_seconds: the selection's part.
        generation_seconds: the whole call.
        peak_memory_bytes: of the GPU since the model was pruned so; None without one.
    """

    num_prompts: int
    num_items: int
    num_visual_tokens: int
    num_kept: int
    num_new_tokens: int
    encoding_seconds: float
    selection_seconds: float
    generation_seconds: float
    peak_memory_bytes: int | None


def measurement(
    num_prompts: int, num_new_tokens: int, seconds: float, report: PruningReport | None, device: torch.device
) -> CallMeasurement:
    """Describe a call that has just ended; `report` is the pruning's, None if nothing was pruned."""
    return CallMeasurement(
        num_prompts=num_prompts,
        num_items=len(report.items) if report else 0,
        num_visual_tokens=report.num_visual_tokens if report else 0,
        num_kept=report.num_kept if report else 0,
        num_new_tokens=num_new_tokens,
        encoding_seconds=report.encoding_seconds if report else 0.0,
        selection_seconds=report.selection_seconds if report else 0.0,
        generation_seconds=seconds,
        peak_memory_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    )


def summary(measured: Iterable[CallMeasurement | dict[str, Any]]) -> dict[str, Any]:
    """Sum measurements: counts and seconds, and the largest memory. Empty if there are none."""
    rows = [one if isinstance(one, dict) else {name: getattr(one, name) for name in one.__slots__} for one in measured]
    if not rows:
        return {}
    sums = {name: sum(row[name] for row in rows) for name in rows[0] if name != "peak_memory_bytes"}
    peaks = [row["peak_memory_bytes"] for row in rows if row["peak_memory_bytes"] is not None]
    return sums | {"peak_memory_bytes": max(peaks, default=None)}
