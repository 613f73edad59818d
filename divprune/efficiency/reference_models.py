"""The paper's models as data: their public config values by name, so that costs need no download.

Sizes as in Table 1 and Section 4 of the DivPrune paper (hidden d, FFN m, layers T); the rest are the values of the
published checkpoints' `config.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from divprune.budget import checked_count
from divprune.efficiency.shapes import LanguageShape, ModelShape, TowerShape

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


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model by name.

    Attributes:
        name: what the command line calls it.
        title: how the paper writes it.
        model_type: its family in transformers.
        text: config of the language model.
        placeholders: the ids that stand for visual tokens in its prompts, by config name.
        frames: frames of the video that the paper feeds it; 0 for images.
        num_visual_tokens: M in the paper's set-up; None where it depends on the image.
        encoder_passes: images that its vision tower sees for one prompt: tiles or frames, at most.
        keep_ratio: the fraction that the paper keeps.
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


_IMAGE_32000: Mapping[str, Any] = {"image_token_index": 32000}
_VIDEO_32000: Mapping[str, Any] = {"image_token_index": 32001, "video_token_index": 32000}

ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("llava-1.5-7b", "LLaVA-1.5-7B", "llava", _VICUNA_7B, _IMAGE_32000, 0, 576, 1, 0.098),
    Architecture("llava-1.5-13b", "LLaVA-1.5-13B", "llava", _VICUNA_13B, _IMAGE_32000, 0, 576, 1, 0.098),
    Architecture("llava-1.6-7b", "LLaVA-1.6-7B", "llava_next", _VICUNA_7B, _IMAGE_32000, 0, None, 5, 0.098),
    Architecture(
        "llava-next-video-7b", "LLaVA-NeXT-Video-7B", "llava_next_video", _VICUNA_7B, _VIDEO_32000, 8, 8 * 144, 8, 0.1
    ),
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
    values: dict[str, Any] = {"text_config": text, "vision_config": dict(_CLIP_LARGE_336), **architecture.placeholders}
    return CONFIG_MAPPING[architecture.model_type](**values)


def architecture_shape(name: str) -> ModelShape:
    """Return the shape of an architecture, as `model_shape` reads it from `architecture_config`; needs no transformers.

    Raises:
        ValueError: no such architecture.
    """
    architecture, tower = get_architecture(name), _CLIP_LARGE_336
    width, num_heads = architecture.text["hidden_size"], architecture.text["num_attention_heads"]
    num_patches = (tower["image_size"] // tower["patch_size"]) ** 2
    language = LanguageShape(
        model_type=architecture.text["model_type"],
        hidden_size=width,
        intermediate_size=architecture.text["intermediate_size"],
        num_layers=architecture.text["num_hidden_layers"],
        num_heads=num_heads,
        num_key_value_heads=num_heads,
        head_size=width // num_heads,
        vocabulary_size=architecture.text["vocab_size"],
    )
    vision = TowerShape(
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
        output_size=width,
    )
    return ModelShape(language, vision, architecture.encoder_passes)
