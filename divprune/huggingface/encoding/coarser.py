"""Pictures made coarser before they are encoded, for models whose pictures all have one size."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from divprune.budget import Budget
from divprune.errors import PruningError
from divprune.huggingface.families.registry import Family
from divprune.methods.image_downsampling import ImageDownsampling

PIXELS = "pixel_values"


def coarser_inputs(
    method: ImageDownsampling, model: PreTrainedModel, family: Family, inputs: Mapping[str, Any], budget: Budget
) -> dict[str, Any]:
    """The inputs of a call with coarser pictures.

    Raises:
        PruningError: the pictures are not of one size, one grid of tokens each.
    """
    pixels = inputs.get(PIXELS)
    others = [
        name for name in ("image_sizes", "pixel_values_videos", "mm_encoder_outputs") if inputs.get(name) is not None
    ]
    if not isinstance(pixels, Tensor) or pixels.ndim != 4 or others:
        seen = ", ".join(others) or f"pixel_values of shape {tuple(getattr(pixels, 'shape', ()))}"
        raise PruningError(
            f"method {method.name!r} needs pictures of one size, pixel_values (n, channels, height, width), got "
            f"{seen}; {family.name!r} models may read pictures at their own size: give the processor smaller ones "
            "instead, by divprune.methods.downsampled(image, keep_ratio), and prune nothing"
        )
    num_tokens = int((inputs["input_ids"] == getattr(model.config, family.placeholders["image"])).sum()) // len(pixels)
    kept = budget.count(max(1, num_tokens))
    return {**inputs, PIXELS: method.coarsened(pixels, kept / max(1, num_tokens))}
