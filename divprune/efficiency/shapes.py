"""The sizes of a model that its FLOPs depend on, read from its config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from divprune.errors import UnsupportedModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# Decoders with a gated feed-forward block (three products) and ordinary attention in every layer.
GATED_DECODERS = (
    "cohere",
    "cohere2",
    "gemma",
    "gemma2",
    "gemma3_text",
    "llama",
    "ministral",
    "mistral",
    "qwen2",
    "qwen2_5_vl_text",
    "qwen2_vl_text",
    "qwen3",
    "qwen3_vl_text",
    "smollm3",
)
# Families whose projector is two linear layers on the tower's patches.
TWO_LAYER_PROJECTORS = ("llava", "llava_next", "llava_next_video", "llava_onevision")
TOWER_TYPES = ("clip_vision_model", "siglip_vision_model")


@dataclass(frozen=True, slots=True)
class LanguageShape:
    """A decoder-only language model.

    Attributes:
        model_type: its name in transformers.
        hidden_size: d.
        intermediate_size: m, width of the feed-forward block.
        num_layers: T.
        num_heads: query heads.
        num_key_value_heads: key and value heads.
        head_size: width of a head.
        vocabulary_size: rows of the output matrix.
    """

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    head_size: int
    vocabulary_size: int


@dataclass(frozen=True, slots=True)
class TowerShape:
    """A vision tower and its projector.

    Attributes:
        hidden_size: width of the tower.
        intermediate_size: width of its feed-forward block.
        num_layers: its layers.
        num_patches: patches of one image, tile or frame.
        num_tokens: the same and the class token, if there is one.
        patch_values: numbers in a patch: 3 colours of so many pixels.
        has_pooling_head: whether it ends in an attention pooling that the language model does not see.
        projector_input_size: what the projector takes of each token.
        projected_tokens: tokens of one image, tile or frame that the projector takes.
        output_size: d of the language model.
    """

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_patches: int
    num_tokens: int
    patch_values: int
    has_pooling_head: bool
    projector_input_size: int
    projected_tokens: int
    output_size: int


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A multimodal model.

    Attributes:
        language: its language model.
        tower: its vision tower and projector; None where their FLOPs are not known.
        encoder_passes: images that the tower sees for one prompt: tiles or frames.
    """

    language: LanguageShape
    tower: TowerShape | None
    encoder_passes: int


def model_shape(config: PreTrainedConfig, encoder_passes: int = 1, *, pooled_video: bool = False) -> ModelShape:
    """Read the shape of a model from its config.

    Args:
        config: of a multimodal model, or of a language model alone.
        encoder_passes: images that the tower sees for one prompt: tiles or frames.
        pooled_video: the prompt holds a video whose frames are pooled before the projector (LLaVA-NeXT-Video).

    Raises:
        UnsupportedModelError: the config has none of the sizes that Eq. 5 needs.
    """
    return ModelShape(language_shape(config), _tower_shape(config, pooled_video), encoder_passes)


def language_shape(config: PreTrainedConfig) -> LanguageShape:
    """Read the shape of a config's language model; errors as for `model_shape`."""
    text: Any = config.get_text_config()
    missing = [
        name
        for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
        if not isinstance(getattr(text, name, None), int)
    ]
    if missing:
        raise UnsupportedModelError(
            f"config of {config.model_type!r} must name the sizes of a decoder, {', '.join(missing)} missing"
        )
    return LanguageShape(
        model_type=text.model_type,
        hidden_size=text.hidden_size,
        intermediate_size=text.intermediate_size,
        num_layers=text.num_hidden_layers,
        num_heads=text.num_attention_heads,
        num_key_value_heads=getattr(text, "num_key_value_heads", None) or text.num_attention_heads,
        head_size=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        vocabulary_size=text.vocab_size,
    )


def _tower_shape(config: PreTrainedConfig, pooled_video: bool) -> TowerShape | None:
    vision: Any = getattr(config, "vision_config", None)
    if vision is None or config.model_type not in TWO_LAYER_PROJECTORS or vision.model_type not in TOWER_TYPES:
        return None
    feature_layers = config.vision_feature_layer
    num_patches = (vision.image_size // vision.patch_size) ** 2
    has_class_token = vision.model_type == "clip_vision_model"
    keeps_class_token = has_class_token and config.vision_feature_select_strategy == "full"
    # Pooled by averaging, or the like, over squares.
    square = config.spatial_pool_stride**2 if pooled_video else 1
    return TowerShape(
        hidden_size=vision.hidden_size,
        intermediate_size=vision.intermediate_size,
        num_layers=vision.num_hidden_layers,
        num_patches=num_patches,
        num_tokens=num_patches + has_class_token,
        patch_values=vision.num_channels * vision.patch_size**2,
        has_pooling_head=vision.model_type == "siglip_vision_model" and getattr(vision, "vision_use_head", True),
        projector_input_size=vision.hidden_size * (len(feature_layers) if isinstance(feature_layers, list) else 1),
        projected_tokens=(num_patches + keeps_class_token) // square,
        output_size=config.get_text_config().hidden_size,
    )
