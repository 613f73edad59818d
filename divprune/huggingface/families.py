"""The few things that differ between model families; everything else is generic.

A family is supported once it is listed here: CONTRIBUTING.md says how to add one.
"""

from dataclasses import dataclass, field
from typing import Literal

from transformers import PreTrainedModel

from divprune.errors import UnsupportedModelError
from divprune.huggingface.family_layouts import (
    LayoutRule,
    gemma4_layout,
    no_layout,
    qwen_layout,
    ragged_layout,
    square_layout,
    tiled_layout,
)
from divprune.huggingface.item_sizes import ItemSizes, entry_sizes, run_sizes, tile_sizes, video_sizes
from divprune.huggingface.kinds import Kind
from divprune.huggingface.llava_layouts import (
    anyres_layout,
    llava_layout,
    next_video_layout,
    onevision_layout,
    video_llava_layout,
)
from divprune.huggingface.refusals import refusal_of

Positions = Literal["compact", "original"]
PLACEHOLDERS: dict[Kind, str] = {"image": "image_token_id", "video": "video_token_id"}


@dataclass(frozen=True)
class Family:
    """What pruning needs to know of one model family.

    Attributes:
        name: `model.config.model_type`.
        kinds: the media whose tokens can be pruned.
        positions: the default of `prune(positions=...)`.
        layout: the places of one item's tokens in the picture, see `family_layouts.LayoutRule`.
        example: a public checkpoint of the family.
        item_sizes: how many of the encoder's tokens belong to each item, see `item_sizes.ItemSizes`.
        placeholders: which entry of the model's configuration holds the id of a kind's placeholders.
    """

    name: str
    kinds: tuple[Kind, ...]
    positions: Positions
    layout: LayoutRule
    example: str
    item_sizes: ItemSizes = entry_sizes
    placeholders: dict[Kind, str] = field(default_factory=PLACEHOLDERS.copy)


IMAGE: tuple[Kind, ...] = ("image",)
BOTH: tuple[Kind, ...] = ("image", "video")
ONE_PLACEHOLDER: dict[Kind, str] = {"image": "image_token_id", "video": "image_token_id"}

FAMILIES = (
    Family("llava", IMAGE, "compact", llava_layout, "llava-hf/llava-1.5-7b-hf"),
    Family("llava_next", IMAGE, "compact", anyres_layout, "llava-hf/llava-v1.6-vicuna-7b-hf"),
    Family("llava_next_video", BOTH, "compact", next_video_layout, "llava-hf/LLaVA-NeXT-Video-7B-hf"),
    Family("llava_onevision", BOTH, "compact", onevision_layout, "llava-hf/llava-onevision-qwen2-7b-ov-hf"),
    Family("vipllava", IMAGE, "compact", llava_layout, "llava-hf/vip-llava-7b-hf"),
    Family("video_llava", BOTH, "compact", video_llava_layout, "LanguageBind/Video-LLaVA-7B-hf", video_sizes),
    Family("mistral3", IMAGE, "compact", ragged_layout, "mistralai/Mistral-Small-3.1-24B-Instruct-2503"),
    Family("internvl", IMAGE, "compact", tiled_layout, "OpenGVLab/InternVL3-1B-hf", run_sizes),
    Family("aya_vision", IMAGE, "compact", tiled_layout, "CohereLabs/aya-vision-8b", tile_sizes),
    Family("cohere2_vision", IMAGE, "compact", tiled_layout, "CohereLabs/command-a-vision-07-2025", run_sizes),
    Family("deepseek_vl", IMAGE, "compact", square_layout, "deepseek-community/deepseek-vl-1.3b-chat"),
    Family("lighton_ocr", IMAGE, "compact", ragged_layout, "lightonai/LightOnOCR-1B-1025"),
    Family("lfm2_vl", IMAGE, "compact", no_layout, "LiquidAI/LFM2-VL-1.6B"),
    Family("idefics2", IMAGE, "compact", no_layout, "HuggingFaceM4/idefics2-8b", run_sizes),
    Family("idefics3", IMAGE, "compact", tiled_layout, "HuggingFaceM4/Idefics3-8B-Llama3", tile_sizes),
    Family("smolvlm", IMAGE, "compact", tiled_layout, "HuggingFaceTB/SmolVLM2-2.2B-Instruct", tile_sizes),
    Family("paligemma", IMAGE, "compact", square_layout, "google/paligemma2-3b-mix-224"),
    Family("gemma3", IMAGE, "compact", square_layout, "google/gemma-3-4b-it"),
    Family("gemma4", BOTH, "compact", gemma4_layout, "google/gemma-4-e2b-it"),
    Family("qwen2_vl", BOTH, "original", qwen_layout, "Qwen/Qwen2-VL-7B-Instruct"),
    Family("qwen2_5_vl", BOTH, "original", qwen_layout, "Qwen/Qwen2.5-VL-7B-Instruct"),
    Family("qwen3_vl", BOTH, "original", qwen_layout, "Qwen/Qwen3-VL-4B-Instruct"),
    Family("qwen3_vl_moe", BOTH, "original", qwen_layout, "Qwen/Qwen3-VL-30B-A3B-Instruct"),
    Family("qwen3_5", BOTH, "original", qwen_layout, "Qwen/Qwen3.5-27B"),
    Family("qwen3_5_moe", BOTH, "original", qwen_layout, "Qwen/Qwen3.5-35B-A3B"),
    Family("glm4v", BOTH, "original", qwen_layout, "zai-org/GLM-4.1V-9B-Thinking", placeholders=ONE_PLACEHOLDER),
    Family("glm4v_moe", BOTH, "original", qwen_layout, "zai-org/GLM-4.5V", placeholders=ONE_PLACEHOLDER),
    Family("glm46v", BOTH, "original", qwen_layout, "zai-org/GLM-4.6V", placeholders=ONE_PLACEHOLDER),
    Family("glm_ocr", BOTH, "original", qwen_layout, "zai-org/GLM-OCR", placeholders=ONE_PLACEHOLDER),
)


def supported_families() -> tuple[Family, ...]:
    """The model families that can be pruned."""
    return FAMILIES


def family_of(model: PreTrainedModel) -> Family:
    """The family of a model.

    Raises:
        UnsupportedModelError: no family is listed for the model's type; with the reason, where the model gives one.
    """
    model_type = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    for family in FAMILIES:
        if family.name == model_type:
            return family
    reason = (
        refusal_of(type(model), model_type) if isinstance(model, PreTrainedModel) else "it is no transformers model"
    )
    names = ", ".join(family.name for family in FAMILIES)
    because = f" ({reason})" if reason else ""
    raise UnsupportedModelError(
        f"no adapter for {model_type!r}{because}; supported families: {names} (see `divprune families`)"
    )
