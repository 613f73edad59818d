"""The pruned model of each family."""

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

from torch import Tensor
from vllm.config import VllmConfig
from vllm.model_executor.models import qwen3_vl
from vllm.model_executor.models.interns1 import InternS1ForConditionalGeneration
from vllm.model_executor.models.internvl import InternVLChatModel
from vllm.model_executor.models.llava import LlavaForConditionalGeneration
from vllm.model_executor.models.llava_next import LlavaNextForConditionalGeneration
from vllm.model_executor.models.llava_next_video import LlavaNextVideoForConditionalGeneration
from vllm.model_executor.models.llava_onevision import LlavaOnevisionForConditionalGeneration
from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration
from vllm.model_executor.models.qwen2_vl import Qwen2VLForConditionalGeneration
from vllm.model_executor.models.qwen3_vl import Qwen3VLForConditionalGeneration

from divprune.vllm_plugin.choice import Grid
from divprune.vllm_plugin.families import Modality
from divprune.vllm_plugin.models import PrunedModel, with_pruned_processor
from divprune.vllm_plugin.mrope import PrunedMRoPEModel
from divprune.vllm_plugin.processor import POSITIONS_FACTOR


@with_pruned_processor
class PrunedLlava(PrunedModel, LlavaForConditionalGeneration):
    """LLaVA-1.5: one square of tokens a picture."""

    def grids(self, kind: Modality, counts: Sequence[int], kwargs: Mapping[str, Any]) -> list[Grid | None]:
        """See `PrunedModel`; with the CLS token among them, tokens form no grid."""
        return [(1, isqrt(count), isqrt(count)) if isqrt(count) ** 2 == count else None for count in counts]


@with_pruned_processor
class PrunedLlavaNext(PrunedModel, LlavaNextForConditionalGeneration):
    """LLaVA-NeXT: the whole picture, its tiles and their row breaks are one item."""


@with_pruned_processor
class PrunedLlavaNextVideo(PrunedModel, LlavaNextVideoForConditionalGeneration):
    """LLaVA-NeXT-Video: vLLM's model reads videos only, frame by frame a square of tokens."""

    def grids(self, kind: Modality, counts: Sequence[int], kwargs: Mapping[str, Any]) -> list[Grid | None]:
        """See `PrunedModel`."""
        side = self.pooled_grid_length
        return [(count // side**2, side, side) for count in counts]


@with_pruned_processor
class PrunedLlavaOnevision(PrunedModel, LlavaOnevisionForConditionalGeneration):
    """LLaVA-OneVision: tiles as LLaVA-NeXT's; a video is its frames and one newline token."""


@with_pruned_processor
class PrunedInternVL(PrunedModel, InternS1ForConditionalGeneration):
    """InternVL in transformers' layout: the tiles of a picture are one item."""


@with_pruned_processor
class PrunedInternVLChat(PrunedModel, InternVLChatModel):
    """InternVL in the layout of its remote code."""


@with_pruned_processor
class PrunedQwen2VL(PrunedMRoPEModel, Qwen2VLForConditionalGeneration):
    """Qwen2-VL."""


@with_pruned_processor
class PrunedQwen2_5_VL(PrunedMRoPEModel, Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL."""


@with_pruned_processor
class PrunedQwen3VL(PrunedMRoPEModel, Qwen3VLForConditionalGeneration):
    """Qwen3-VL: features for deeper layers stand in columns behind a token's own, and are gathered with it."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        """Build the model with room for the positions of dropped tokens."""
        # Unpruned, no position is larger than the number of tokens before it, and vLLM makes room for no more.
        before = qwen3_vl.mrope_positions_factor
        qwen3_vl.mrope_positions_factor = lambda _: POSITIONS_FACTOR
        try:
            super().__init__(vllm_config=vllm_config, prefix=prefix)
        finally:
            qwen3_vl.mrope_positions_factor = before

    def visual_tokens(self, item: Tensor) -> Tensor:
        """See `PrunedModel`."""
        return item[:, : self.visual_dim]
