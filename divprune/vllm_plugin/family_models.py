"""The pruned model of each family."""

from collections.abc import Mapping, Sequence
from math import isqrt
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models.interns1 import InternS1ForConditionalGeneration
from vllm.model_executor.models.internvl import InternVLChatModel
from vllm.model_executor.models.llava import LlavaForConditionalGeneration
from vllm.model_executor.models.llava_next import LlavaNextForConditionalGeneration
from vllm.model_executor.models.llava_next_video import LlavaNextVideoForConditionalGeneration
from vllm.model_executor.models.llava_onevision import LlavaOnevisionForConditionalGeneration
from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration
from vllm.model_executor.models.qwen2_vl import Qwen2VLForConditionalGeneration

from divprune.methods.base import Modality
from divprune.methods.grids import Grid
from divprune.vllm_plugin.counting import PrunedCountingModel
from divprune.vllm_plugin.mrope import PrunedMRoPEModel
from divprune.vllm_plugin.pruned_model import with_pruned_processor
from divprune.vllm_plugin.qwen3 import PrunedQwen3VL
from divprune.vllm_plugin.tower_model import TowerModel

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
class PrunedLlava(TowerModel, PrunedCountingModel, LlavaForConditionalGeneration):
    """LLaVA-1.5: one square of tokens an image."""

    def num_tiles(self, kind: Modality, num_items: int, kwargs: Mapping[str, Any]) -> list[int]:
        """Return 1 for each image."""
        return [1] * num_items

    def token_values(self, kind: Modality, index: int, kwargs: Mapping[str, Any], values: Tensor) -> Tensor:
        """Return the values: every patch becomes a token."""
        return values.flatten(0, 1)

    def grids(self, kind: Modality, counts: Sequence[int], kwargs: Mapping[str, Any]) -> list[Grid | None]:
        """Return the grids; with the CLS token among them, tokens form none."""
        return [(1, isqrt(count), isqrt(count)) if isqrt(count) ** 2 == count else None for count in counts]


class AnyresModel(TowerModel):
    """The whole image, its tiles and their image newline tokens are one item."""

    def num_tiles(self, kind: Modality, num_items: int, kwargs: Mapping[str, Any]) -> list[int]:
        """Count the tiles, the whole image among them, or the frames."""
        return [len(each) for each in kwargs["pixel_values" if kind == "image" else "pixel_values_videos"]]

    def token_values(self, kind: Modality, index: int, kwargs: Mapping[str, Any], values: Tensor) -> Tensor:
        """Have the family's own method put tiles together, with zeros for newline tokens."""
        stand_in = SimpleNamespace(config=self.config, image_newline=values.new_zeros(values.shape[-1]))
        return self.packed(stand_in, kwargs["image_sizes"][index], values)

    def packed(self, stand_in: Any, image_size: Tensor, values: Tensor) -> Tensor:
        """Call the family's own method, whose `self` is a stand-in with another newline token."""
        return type(self)._merge_image_patch_embeddings(stand_in, image_size, values, strategy="spatial_unpad")


@with_pruned_processor
class PrunedLlavaNext(AnyresModel, PrunedCountingModel, LlavaNextForConditionalGeneration):
    """LLaVA-NeXT."""


@with_pruned_processor
class PrunedLlavaNextVideo(PrunedCountingModel, LlavaNextVideoForConditionalGeneration):
    """LLaVA-NeXT-Video: vLLM's model reads videos only, frame by frame a square of tokens."""

    def grids(self, kind: Modality, counts: Sequence[int], kwargs: Mapping[str, Any]) -> list[Grid | None]:
        side = self.pooled_grid_length
        return [(count // side**2, side, side) for count in counts]


@with_pruned_processor
class PrunedLlavaOnevision(AnyresModel, PrunedCountingModel, LlavaOnevisionForConditionalGeneration):
    """LLaVA-OneVision: tiles as LLaVA-NeXT's, scaled down if many; a video is its frames and one newline token."""

    interpolates = True

    def token_values(self, kind: Modality, index: int, kwargs: Mapping[str, Any], values: Tensor) -> Tensor:
        """Pool the frames of a video; an image is packed as its features are."""
        if kind == "image":
            return super().token_values(kind, index, kwargs, values)
        pooled = self.apply_pooling(values).flatten(0, 1)
        return torch.cat([pooled, pooled.new_zeros(1, pooled.shape[1])])

    def packed(self, stand_in: Any, image_size: Tensor, values: Tensor) -> Tensor:
        """Call the family's own method, which is given the newline token too."""
        return type(self)._merge_image_patch_embeddings(
            stand_in, image_size, values, image_newline=stand_in.image_newline, strategy="spatial_unpad"
        )


@with_pruned_processor
class PrunedInternVL(PrunedCountingModel, InternS1ForConditionalGeneration):
    """InternVL in transformers' layout: the tiles of an image are one item."""


@with_pruned_processor
class PrunedInternVLChat(PrunedCountingModel, InternVLChatModel):
    """InternVL in the layout of its remote code."""


@with_pruned_processor
class PrunedQwen2VL(PrunedMRoPEModel, Qwen2VLForConditionalGeneration):
    """Qwen2-VL."""


@with_pruned_processor
class PrunedQwen2_5_VL(PrunedMRoPEModel, Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL."""
