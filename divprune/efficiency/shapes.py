"""The sizes of a model that its FLOPs depend on, read from its config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from divprune.encoder_options import TomeEncoder
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
# Families whose tower takes patches of native resolution, and whose merger makes one token of a square of them.
MERGING_TOWERS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


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
        projector_hidden_size: width between the projector's two layers; None for d.
        num_projectors: how many there are, each on all tokens: Qwen3-VL has some for deeper decoder layers.
        feed_forward_products: products of a feed-forward block, three if it is gated.
        window_patches: patches that see each other in a layer with windows.
        num_windowed_layers: layers with windows; in the others all patches see each other.
        num_layers_read: layers up to the one whose states the projector reads, in which patches can be merged
            (`encoder="tome:r=8"`); None where they cannot.
        head_size: width of a head's keys, by which they are compared.
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
    projector_hidden_size: int | None = None
    num_projectors: int = 1
    feed_forward_products: int = 2
    window_patches: int = 0
    num_windowed_layers: int = 0
    num_layers_read: int | None = None
    head_size: int = 0

    def patches_left(self, option: TomeEncoder) -> list[int]:
        """Return how many patches of one image or tile are left behind each layer that is computed.

        Raises:
            UnsupportedModelError: patches of this tower cannot be merged.
            ValueError: not so many of them.
        """
        if self.num_layers_read is None:
            raise UnsupportedModelError(
                f"encoder option {option.name!r} is counted for images in CLIP and SigLIP encoders of which the "
                "projector reads one layer and makes a token of each patch, as in llava and llava_next; leave "
                "`encoder` out"
            )
        return option.patches_left(self.num_patches, self.num_layers_read)


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


def model_shape(
    config: PreTrainedConfig,
    encoder_passes: int = 1,
    *,
    pooled_video: bool = False,
    num_visual_tokens: int | None = None,
) -> ModelShape:
    """Read the shape of a model from its config.

    Args:
        config: of a multimodal model, or of a language model alone.
        encoder_passes: images that the tower sees for one prompt: tiles or frames.
        pooled_video: the prompt holds a video whose frames are pooled before the projector (LLaVA-NeXT-Video).
        num_visual_tokens: M of the image, for towers that take patches of native resolution; None where it is unknown,
            and their FLOPs with it.

    Raises:
        UnsupportedModelError: the config has none of the sizes that Eq. 5 needs.
    """
    language, tower = language_shape(config), _tower_shape(config, pooled_video)
    if config.model_type in MERGING_TOWERS and num_visual_tokens is not None:
        vision: Any = config.vision_config
        tower = merging_tower_shape(config.model_type, vision, language.hidden_size, num_visual_tokens)
    return ModelShape(language, tower, encoder_passes)


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
    # A token is a patch where none is between patches (LLaVA-OneVision), or pooled, or no patch.
    one_to_one = not (keeps_class_token or pooled_video or config.model_type == "llava_onevision")
    num_layers_read = None
    if isinstance(feature_layers, int) and one_to_one:
        num_layers_read = feature_layers + (vision.num_hidden_layers + 1 if feature_layers < 0 else 0)
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
        num_layers_read=num_layers_read,
        head_size=vision.hidden_size // vision.num_attention_heads,
    )


def merging_tower_shape(model_type: str, vision: Any, output_size: int, num_visual_tokens: int) -> TowerShape:
    """Return the shape of a tower of Qwen-VL, for an image of so many tokens.

    Args:
        model_type: one of `MERGING_TOWERS`.
        vision: the tower's config.
        output_size: d of the language model.
        num_visual_tokens: M.
    """
    is_first, has_windows = model_type == "qwen2_vl", model_type == "qwen2_5_vl"
    # In Qwen2-VL's config the hidden size is that behind the merger.
    width = vision.embed_dim if is_first else vision.hidden_size
    square = vision.spatial_merge_size**2
    return TowerShape(
        hidden_size=width,
        intermediate_size=int(width * vision.mlp_ratio) if is_first else vision.intermediate_size,
        num_layers=vision.depth,
        num_patches=square * num_visual_tokens,
        num_tokens=square * num_visual_tokens,
        patch_values=vision.in_channels * vision.temporal_patch_size * vision.patch_size**2,
        has_pooling_head=False,
        projector_input_size=square * width,
        projected_tokens=num_visual_tokens,
        output_size=output_size,
        projector_hidden_size=square * width,
        num_projectors=1 + len(getattr(vision, "deepstack_visual_indexes", ())),
        feed_forward_products=3 if has_windows else 2,
        window_patches=(vision.window_size // vision.patch_size) ** 2 if has_windows else 0,
        num_windowed_layers=vision.depth - len(vision.fullatt_block_indexes) if has_windows else 0,
    )
