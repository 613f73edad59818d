"""The paper's models, and Qwen-VL's, as data: their public config values by name, so that costs need no download.

Sizes as in Table 1 and Section 4 of the DivPrune paper (hidden d, FFN m, layers T); the rest, and those of Qwen2-VL-7B,
Qwen2.5-VL-7B and Qwen3-VL-8B, are the values of the published checkpoints' `config.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from divprune.budget import checked_count
from divprune.efficiency.shapes import MERGING_TOWERS, LanguageShape, ModelShape, TowerShape, merging_tower_shape

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_CLIP_LARGE_336: Mapping[str, Any] = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
_VICUNA_7B: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 4096,
    "vocab_size": 32064,
    "rms_norm_eps": 1e-5,
    "pad_token_id": 0,
}
_VICUNA_13B: dict[str, Any] = _VICUNA_7B | {
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
}
_QWEN2_7B: Mapping[str, Any] = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "vocab_size": 152064,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [16, 24, 24]},
}
_QWEN3_8B: Mapping[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 262144,
    "vocab_size": 151936,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 5000000.0,
        "mrope_section": [24, 20, 20],
        "mrope_interleaved": True,
    },
}
_QWEN_PATCHES: Mapping[str, Any] = {
    "num_heads": 16,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "in_channels": 3,
}
_QWEN2_TOWER: Mapping[str, Any] = {"depth": 32, "embed_dim": 1280, "hidden_size": 3584, "mlp_ratio": 4, **_QWEN_PATCHES}
_QWEN2_5_TOWER: Mapping[str, Any] = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "out_hidden_size": 3584,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "tokens_per_second": 2,
    **_QWEN_PATCHES,
}
_QWEN3_TOWER: Mapping[str, Any] = {
    **_QWEN_PATCHES,
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "out_hidden_size": 4096,
    "patch_size": 16,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [8, 16, 24],
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model by name.

    Attributes:
        name: what the command line calls it.
        title: how its paper writes it.
        model_type: its family in transformers.
        text: config of the language model.
        placeholders: the ids that stand for visual tokens in its prompts, by config name.
        frames: frames of the video that the paper feeds it; 0 for images.
        num_visual_tokens: M in the paper's set-up, or of a square image where patches are of native resolution; None
            where it depends on the image.
        encoder_passes: images that its vision tower sees for one prompt: tiles or frames, at most.
        keep_ratio: the fraction that the paper keeps.
        vision: config of the vision tower.
    """

    name: str
    title: str
    model_type: str
    text: Mapping[str, Any]
    placeholders: Mapping[str, int]
    frames: int
    num_visual_tokens: int | None
    encoder_passes: int
    keep_ratio: float
    vision: Mapping[str, Any] = field(default_factory=lambda: _CLIP_LARGE_336)

    @property
    def usual_tokens(self) -> int:
        """`num_visual_tokens`.

        Raises:
            ValueError: it depends on the image.
        """
        if self.num_visual_tokens is None:
            raise ValueError(f"num_visual_tokens must be given for {self.name!r}, where it depends on the image")
        return self.num_visual_tokens


_IMAGE_32000: Mapping[str, Any] = {"image_token_index": 32000}
_VIDEO_32000: Mapping[str, Any] = {"image_token_index": 32001, "video_token_index": 32000}

PAPER_ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("llava-1.5-7b", "LLaVA-1.5-7B", "llava", _VICUNA_7B, _IMAGE_32000, 0, 576, 1, 0.098),
    Architecture("llava-1.5-13b", "LLaVA-1.5-13B", "llava", _VICUNA_13B, _IMAGE_32000, 0, 576, 1, 0.098),
    Architecture("llava-1.6-7b", "LLaVA-1.6-7B", "llava_next", _VICUNA_7B, _IMAGE_32000, 0, None, 5, 0.098),
    Architecture(
        "llava-next-video-7b", "LLaVA-NeXT-Video-7B", "llava_next_video", _VICUNA_7B, _VIDEO_32000, 8, 8 * 144, 8, 0.1
    ),
)
_QWEN_IDS: Mapping[str, Any] = {"image_token_id": 151655, "video_token_id": 151656}
ARCHITECTURES: tuple[Architecture, ...] = (
    *PAPER_ARCHITECTURES,
    Architecture("qwen2-vl-7b", "Qwen2-VL-7B", "qwen2_vl", _QWEN2_7B, _QWEN_IDS, 0, 576, 1, 0.098, _QWEN2_TOWER),
    Architecture(
        "qwen2.5-vl-7b", "Qwen2.5-VL-7B", "qwen2_5_vl", _QWEN2_7B, _QWEN_IDS, 0, 576, 1, 0.098, _QWEN2_5_TOWER
    ),
    Architecture("qwen3-vl-8b", "Qwen3-VL-8B", "qwen3_vl", _QWEN3_8B, _QWEN_IDS, 0, 576, 1, 0.098, _QWEN3_TOWER),
)


def get_architecture(name: str) -> Architecture:
    """Return the architecture of this name, in any case.

    Raises:
        ValueError: there is none.
    """
    known = {architecture.name: architecture for architecture in ARCHITECTURES}
    if name.lower() not in known:
        close = get_close_matches(name.lower(), known, n=1, cutoff=0.4)
        guess = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"architecture must be one of {', '.join(known)}, got {name!r}{guess}")
    return known[name.lower()]


def architecture_config(name: str, num_layers: int | None = None) -> PreTrainedConfig:
    """Return the transformers config of an architecture.

    Args:
        name: see `ARCHITECTURES`.
        num_layers: decoder layers, at least 1, for a shallower model of the same width; None for all.

    Raises:
        ValueError: no such architecture, or `num_layers` out of range.
        TypeError: `num_layers` is not an integer.
    """
    from transformers import CONFIG_MAPPING

    architecture = get_architecture(name)
    text = dict(architecture.text)
    if num_layers is not None:
        text["num_hidden_layers"] = checked_count("num_layers", num_layers)
    values: dict[str, Any] = {
        "text_config": text,
        "vision_config": dict(architecture.vision),
        **architecture.placeholders,
    }
    return CONFIG_MAPPING[architecture.model_type](**values)


def architecture_shape(name: str, num_visual_tokens: int | None = None) -> ModelShape:
    """Return the shape of an architecture, as `model_shape` reads it from `architecture_config`; needs no transformers.

    Args:
        name: see `ARCHITECTURES`.
        num_visual_tokens: M of the image, for towers that take patches of native resolution; None for the usual one.

    Raises:
        ValueError: no such architecture.
    """
    architecture = get_architecture(name)
    text, width = architecture.text, architecture.text["hidden_size"]
    num_heads = text["num_attention_heads"]
    language = LanguageShape(
        model_type=text.get("model_type", f"{architecture.model_type}_text"),
        hidden_size=width,
        intermediate_size=text["intermediate_size"],
        num_layers=text["num_hidden_layers"],
        num_heads=num_heads,
        num_key_value_heads=text.get("num_key_value_heads", num_heads),
        head_size=text.get("head_dim", width // num_heads),
        vocabulary_size=text["vocab_size"],
    )
    if architecture.model_type in MERGING_TOWERS:
        total = architecture.usual_tokens if num_visual_tokens is None else num_visual_tokens
        vision = merging_tower_shape(architecture.model_type, SimpleNamespace(**architecture.vision), width, total)
    else:
        vision = _clip_shape(architecture)
    return ModelShape(language, vision, architecture.encoder_passes)


def _clip_shape(architecture: Architecture) -> TowerShape:
    tower = architecture.vision
    num_patches = (tower["image_size"] // tower["patch_size"]) ** 2
    return TowerShape(
        hidden_size=tower["hidden_size"],
        intermediate_size=tower["intermediate_size"],
        num_layers=tower["num_hidden_layers"],
        num_patches=num_patches,
        num_tokens=num_patches + 1,  # and the class token, which the projector does not take
        patch_values=3 * tower["patch_size"] ** 2,
        has_pooling_head=False,
        projector_input_size=tower["hidden_size"],
        # Frames are pooled over squares of 2 x 2.
        projected_tokens=num_patches // (4 if architecture.frames else 1),
        output_size=architecture.text["hidden_size"],
        # The projector reads the last layer but one.
        num_layers_read=None if architecture.frames else tower["num_hidden_layers"] - 1,
        head_size=tower["hidden_size"] // tower["num_attention_heads"],
    )
