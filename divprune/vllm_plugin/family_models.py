"""The pruned model of each family."""

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

from vllm.model_executor.models.interns1 import InternS1ForConditionalGeneration
from vllm.model_executor.models.internvl import InternVLChatModel
from vllm.model_executor.models.llava import LlavaForConditionalGeneration
from vllm.model_executor.models.llava_next import LlavaNextForConditionalGeneration
from vllm.model_executor.models.llava_next_video import LlavaNextVideoForConditionalGeneration
from vllm.model_executor.models.llava_onevision import LlavaOnevisionForConditionalGeneration
from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration
from vllm.model_executor.models.qwen2_vl import Qwen2VLForConditionalGeneration

from divprune.methods.grids import Grid
from divprune.methods.item_context import Modality
from divprune.vllm_plugin.counting import PrunedCountingModel
from divprune.vllm_plugin.mrope import PrunedMRoPEModel
from divprune.vllm_plugin.pruned_model import with_pruned_processor
from divprune.vllm_plugin.qwen3 import PrunedQwen3VL
from divprune.vllm_plugin.towers import (
    AnyresTower,
    InterpolatedRows,
    MergedTower,
    ShuffledTower,
    SquareTower,
    WindowedTower,
)

__all__ = [
    "PrunedInternVL",
    "PrunedInternVLChat",
    "PrunedLlava",
    "PrunedLlavaNext",
    "PrunedLlavaNextVideo",
    "PrunedLlavaOnevision",
    "PrunedQwen2VL",
    "PrunedQwen2_5_VL",
    "PrunedQwen3VL",
]


@with_pruned_processor
class PrunedLlava(SquareTower, PrunedCountingModel, LlavaForConditionalGeneration):
    """LLaVA-1.5: one square of tokens an image."""

    def grids(self, modality: Modality, counts: Sequence[int], kwargs: Mapping[str, Any]) -> list[Grid | None]:
        """Return the grids; with the CLS token among them, tokens form none."""
        return [(1, isqrt(count), isqrt(count)) if isqrt(count) ** 2 == count else None for count in counts]


@with_pruned_processor
class PrunedLlavaNext(AnyresTower, PrunedCountingModel, LlavaNextForConditionalGeneration):
    """LLaVA-NeXT."""


@with_pruned_processor
class PrunedLlavaNextVideo(PrunedCountingModel, LlavaNextVideoForConditionalGeneration):
    """LLaVA-NeXT-Video: vLLM's model reads videos only, frame by frame a square of tokens."""

    def grids(self, modality: Modality, counts: Sequence[int], kwargs: Mapping[str, Any]) -> list[Grid | None]:
        side = self.pooled_grid_length
        return [(count // side**2, side, side) for count in counts]


@with_pruned_processor
class PrunedLlavaOnevision(InterpolatedRows, PrunedCountingModel, LlavaOnevisionForConditionalGeneration):
    """LLaVA-OneVision: tiles as LLaVA-NeXT's; a video is its frames and one newline token."""


@with_pruned_processor
class PrunedInternVL(ShuffledTower, PrunedCountingModel, InternS1ForConditionalGeneration):
    """InternVL in transformers' layout: the tiles of an image are one item."""


@with_pruned_processor
class PrunedInternVLChat(PrunedCountingModel, InternVLChatModel):
    """InternVL in the layout of its remote code."""


@with_pruned_processor
class PrunedQwen2VL(MergedTower, PrunedMRoPEModel, Qwen2VLForConditionalGeneration):
    """Qwen2-VL."""


@with_pruned_processor
class PrunedQwen2_5_VL(WindowedTower, PrunedMRoPEModel, Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL."""
