"""The two kinds of media, and the model inputs that bring them."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

Kind = Literal["image", "video"]

PIXEL_INPUTS: dict[Kind, tuple[str, ...]] = {
    "image": ("pixel_values", "pixel_values_images"),
    "video": ("pixel_values_videos",),
}


def pixels_of(inputs: Mapping[str, Any], kind: Kind) -> Tensor | None:
    """The pictures of a kind as the processor made them; None if the call brings none."""
    for name in PIXEL_INPUTS[kind]:
        if inputs.get(name) is not None:
            pixels: Tensor = inputs[name]
            return pixels
    return None
