"""The model families that are served pruned, by vLLM's names of their architectures."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # vLLM loads this file in every process; the methods, and torch, only where a model is pruned.
    from divprune.methods.item_context import Modality

PREFIX = "DivPrune"


@dataclass(frozen=True, slots=True)
class ServedFamily:
    """What the plugin knows of a family before its model is loaded.

    Attributes:
        architecture: vLLM's name, as in a checkpoint's config.json.
        model: Class in `divprune.vllm_plugin.family_models`.
        modalities: What of it is pruned; the others are refused.
        has_grid: Whether an item's tokens form one grid, which some methods want to know.
        has_video_text: Whether text stands between the frames of a video.
    """

    architecture: str
    model: str
    modalities: "tuple[Modality, ...]" = ("image",)
    has_grid: bool = False
    has_video_text: bool = False

    @property
    def pruned_architecture(self) -> str:
        """The name that asks for the pruned model."""
        return PREFIX + self.architecture


SERVED_FAMILIES = (
    ServedFamily("LlavaForConditionalGeneration", "PrunedLlava", has_grid=True),
    ServedFamily("LlavaNextForConditionalGeneration", "PrunedLlavaNext"),
    ServedFamily("LlavaNextVideoForConditionalGeneration", "PrunedLlavaNextVideo", ("video",), has_grid=True),
    ServedFamily("LlavaOnevisionForConditionalGeneration", "PrunedLlavaOnevision", ("image", "video")),
    ServedFamily("InternVLForConditionalGeneration", "PrunedInternVL"),
    ServedFamily("InternVLChatModel", "PrunedInternVLChat"),
    ServedFamily("Qwen2VLForConditionalGeneration", "PrunedQwen2VL", ("image", "video"), has_grid=True),
    ServedFamily("Qwen2_5_VLForConditionalGeneration", "PrunedQwen2_5_VL", ("image", "video"), has_grid=True),
    ServedFamily(
        "Qwen3VLForConditionalGeneration", "PrunedQwen3VL", ("image", "video"), has_grid=True, has_video_text=True
    ),
)  # fmt: skip


def served_family(architecture: str) -> ServedFamily | None:
    """Return the family of an architecture, pruned or not; None if it is not served."""
    plain = architecture.removeprefix(PREFIX)
    return next((family for family in SERVED_FAMILIES if family.architecture == plain), None)
