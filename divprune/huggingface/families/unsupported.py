"""Why the images of some models cannot be pruned: reasons that lie in the model or in transformers.

Most are read off the class; only what its code does inside is written down here.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import transformers
from transformers import MODEL_MAPPING, GenerationMixin
from transformers.models.auto import modeling_auto

CODEBOOK = "its images are words of a codebook: tokens of the vocabulary, which no encoder output replaces"
CROSS_ATTENTION = "its images enter by cross-attention, there are no placeholders to drop"
NO_CLASS = "transformers has no class for it that answers a prompt with images"

REASONS = {
    "chameleon": CODEBOOK,
    "emu3": CODEBOOK,
    "fuyu": "it has no vision encoder: images enter as raw patches, read from last_hidden_state",
    "granite4_vision": "its features enter the language model at several layers, no one of them is the visual token",
    "idefics": CROSS_ATTENTION,
    "llama4": "its projector runs inside forward(), behind the encoder output that pruning could shorten",
    "minimax_m3_vl": (
        "its sparse attention takes position ids for places in the cache, in blocks of index_block_size keys, which "
        "they no longer are in a padded batch of shortened prompts"
    ),
    "mllama": CROSS_ATTENTION,
    "nemotron_h_omni": "its forward() drops tokens of videos by itself (video_pruning_rate), and needs all to choose",
}
"""By `model.config.model_type`."""


def refusal_of(model_class: type[Any], model_type: str) -> str | None:
    """Tell why models of a class cannot be pruned.

    Args:
        model_class: the class, such as `MllamaForConditionalGeneration`.
        model_type: `model.config.model_type`.

    Returns:
        The reason; None if nothing in the class stands against pruning.
    """
    if model_type in REASONS:
        return REASONS[model_type]
    generates = issubclass(model_class, GenerationMixin)
    if not generates:
        return "it does not generate text token by token"
    modalities = getattr(model_class, "input_modalities", ())
    if "image" not in modalities and "video" not in modalities:
        return "it takes no images or videos"
    if model_class.generate is not GenerationMixin.generate:
        return "it has a generate() of its own, which does not take encoded images"
    parameters = inspect.signature(model_class.forward).parameters
    if "decoder_input_ids" in parameters:
        return "it is an encoder-decoder: " + CROSS_ATTENTION
    if "mm_encoder_outputs" not in parameters:
        return "its forward() does not take encoded images (mm_encoder_outputs)"
    base_class = MODEL_MAPPING.get(model_class.config_class, None)
    encoders = [f"get_{kind}_features" for kind in ("image", "video")]
    if not any(hasattr(owner, encoder) for owner in (base_class, model_class) for encoder in encoders):
        return "it has no get_image_features(), which would give its visual tokens"
    return None


def class_of(model_type: str) -> type[Any] | None:
    """Return the class of transformers that answers prompts with images for a `model_type`; None if there is none."""
    names = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    name = names.get(model_type) or modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES.get(model_type)
    return None if name is None else getattr(transformers, name)


def refusal_of_type(model_type: str) -> str | None:
    """Tell why models of a type cannot be pruned, found out before any model is built; as `refusal_of`."""
    if model_type in REASONS:
        return REASONS[model_type]
    model_class = class_of(model_type)
    return NO_CLASS if model_class is None else refusal_of(model_class, model_type)


@dataclass(frozen=True)
class RefusedClass:
    """A class that no adapter can be written for.

    Attributes:
        name: of the class, such as "MllamaForConditionalGeneration".
        model_type: `model.config.model_type`.
        reason: what in the model or in transformers stands against pruning.
    """

    name: str
    model_type: str
    reason: str


def refused_classes() -> tuple[RefusedClass, ...]:
    """Those of transformers' auto-model mappings for image-text-to-text and multimodal language models."""
    names = {
        **modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        **modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    }
    reasons = [
        (model_type, name, refusal_of(getattr(transformers, name), model_type))
        for model_type, name in sorted(names.items())
    ]
    return tuple(RefusedClass(name, model_type, reason) for model_type, name, reason in reasons if reason is not None)
