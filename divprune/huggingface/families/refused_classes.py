"""The vision-language classes of the installed transformers that cannot be pruned, each with its reason."""

from dataclasses import dataclass

import transformers
from transformers.models.auto import modeling_auto

from divprune.huggingface.families.unsupported import refusal_of


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
