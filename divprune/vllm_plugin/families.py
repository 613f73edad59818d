"""The model families that are served pruned, by vLLM's names of their architectures."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # vLLM loads this file in every process; the methods, and torch, only where a model is pruned.
    from divprune.methods.item_context import Modality, Need

PREFIX = "DivPrune"
GRID_NEEDS: "frozenset[Need]" = frozenset({"grid", "pieces"})
TOWER_NEEDS: "frozenset[Need]" = frozenset(
    {"vision_attention", "early_vision_attention", "vision_keys", "patch_features"}
)
"""What is captured in a vision tower, and told of each item. CLS features are read where there are any."""


@dataclass(frozen=True, slots=True)
class ServedFamily:
    """What the plugin knows of a family before its model is loaded.

    Attributes:
        architecture: vLLM's name, as in a checkpoint's config.json.
        model: Class in `divprune.vllm_plugin.family_models`.
        modalities: What of it is pruned; the others are refused.
        has_grid: Whether an item's tokens form one grid, which some methods want to know.
        has_video_text: Whether text stands between the frames of a video.
        reads_tower: Whether what methods need of the vision tower is captured.
        has_tiles: Whether an image's tokens are tiles one after the other, each a grid of its own.
    """

    architecture: str
    model: str
    modalities: "tuple[Modality, ...]" = ("image",)
    has_grid: bool = False
    has_video_text: bool = False
    reads_tower: bool = False
    has_tiles: bool = False

    @property
    def pruned_architecture(self) -> str:
        """The name that asks for the pruned model."""
        return PREFIX + self.architecture

    def supplies(self, modality: "Modality") -> "frozenset[Need]":
        """Return what a method may need to know of an item: fields of `ItemContext`."""
        known = GRID_NEEDS if self.has_grid else frozenset()
        if self.reads_tower:
            known |= TOWER_NEEDS | ({"pieces"} if modality == "image" else set())
        return known


SERVED_FAMILIES = (
    ServedFamily("LlavaForConditionalGeneration", "PrunedLlava", has_grid=True, reads_tower=True),
    ServedFamily("LlavaNextForConditionalGeneration", "PrunedLlavaNext", reads_tower=True),
    ServedFamily("LlavaNextVideoForConditionalGeneration", "PrunedLlavaNextVideo", ("video",), has_grid=True),
    ServedFamily(
        "LlavaOnevisionForConditionalGeneration", "PrunedLlavaOnevision", ("image", "video"), reads_tower=True
    ),
    ServedFamily("InternVLForConditionalGeneration", "PrunedInternVL", reads_tower=True, has_tiles=True),
    ServedFamily("InternVLChatModel", "PrunedInternVLChat"),
    ServedFamily(
        "Qwen2VLForConditionalGeneration", "PrunedQwen2VL", ("image", "video"), has_grid=True, reads_tower=True
    ),
    ServedFamily(
        "Qwen2_5_VLForConditionalGeneration", "PrunedQwen2_5_VL", ("image", "video"), has_grid=True, reads_tower=True
    ),
    ServedFamily(
        "Qwen3VLForConditionalGeneration",
        "PrunedQwen3VL",
        ("image", "video"),
        has_grid=True,
        has_video_text=True,
        reads_tower=True,
    ),
)


def served_family(architecture: str) -> ServedFamily | None:
    """Return the family of an architecture, pruned or not; None if it is not served."""
    plain = architecture.removeprefix(PREFIX)
    return next((family for family in SERVED_FAMILIES if family.architecture == plain), None)
