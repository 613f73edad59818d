"""The arguments of `generate` and `forward` by name: pixels, token types, labels, and the key/value cache.

The one place that knows what these are called. transformers 5.24 renamed `past_key_values` to `cache` in models,
decoder layers, `generate` and outputs: users may write either, and what goes on to the model carries the name that the
installed version wants.
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from transformers import GenerationMixin

from divprune.errors import PruningError
from divprune.methods.item_context import Modality

NAMES = ("cache", "past_key_values")
_PARAMETERS = inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
CACHE = next(name for name in NAMES if name in _PARAMETERS)
"""The name of the cache that the installed transformers wants."""

PIXEL_INPUTS: dict[Modality, tuple[str, ...]] = {
    "image": ("pixel_values", "pixel_values_images"),
    "video": ("pixel_values_videos",),
}
LAYOUT_INPUTS = (
    "image_sizes",
    *(f"{modality}_{name}" for modality in PIXEL_INPUTS for name in ("grid_thw", "position_ids")),
    "num_frames_per_video",
)
"""What processors tell of the sizes of images and videos."""
TYPE_INPUTS = ("token_type_ids", "mm_token_type_ids", "moe_mm_token_type_ids")
PADDING_VALUES = {"attention_mask": 0, **dict.fromkeys(TYPE_INPUTS, 0), "labels": -100}
"""Per-token inputs besides the ids and positions, and what stands at padding."""


def pixels_of(inputs: Mapping[str, Any], modality: Modality) -> Tensor | None:
    """Look up the pixels of images or videos as the processor made them; None if the call brings none."""
    for name in PIXEL_INPUTS[modality]:
        if inputs.get(name) is not None:
            pixels: Tensor = inputs[name]
            return pixels
    return None


def modalities_in(inputs: Mapping[str, Any]) -> list[Modality]:
    """List the modalities whose pixels a call brings."""
    return [modality for modality in PIXEL_INPUTS if pixels_of(inputs, modality) is not None]


def has_visual_inputs(inputs: Mapping[str, Any]) -> bool:
    """Tell whether a call brings images or videos, as pixels or already encoded."""
    return bool(inputs.get("mm_encoder_outputs")) or bool(modalities_in(inputs))


def layout_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Take from a call what tells where tokens sit in an image; pixels as tensors that have a shape and no data."""
    pixels = {name for names in PIXEL_INPUTS.values() for name in names}
    shapes = {name: value.to("meta") for name, value in inputs.items() if name in pixels and value is not None}
    return {name: inputs[name] for name in LAYOUT_INPUTS if name in inputs} | shapes


def cache_in(holder: Mapping[str, Any]) -> Any:
    """Look up the cache in a call's or a decoder layer's arguments, or in a model's output; None without one."""
    return next((holder[name] for name in NAMES if name in holder), None)


def cache_name(parameters: Iterable[str]) -> str:
    """Tell what a function calls the cache that is among its parameters; the installed version's name if none is."""
    return next((name for name in parameters if name in NAMES), CACHE)


def without_cache(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Leave the cache out of a call's arguments."""
    return {name: value for name, value in arguments.items() if name not in NAMES}


def with_installed_name(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Give the cache among a call's arguments the name that the installed transformers wants.

    Raises:
        PruningError: the call brings a cache under each name.
    """
    given = {name: arguments[name] for name in NAMES if arguments.get(name) is not None}
    if len(given) > 1:
        raise PruningError(
            f"{' and '.join(given)} are two names of one argument, got both; pass the cache as {CACHE} alone"
        )
    renamed = without_cache(arguments)
    if any(name in arguments for name in NAMES):
        renamed[CACHE] = next(iter(given.values()), None)
    return renamed
