"""Which models an encoder option fits, and the encoder run with it: fewer patches, and which tokens they became."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.utils.generic import ModelOutput

from divprune.config import PruningConfig
from divprune.encoder_options import PixelDedup, TomeEncoder, require_encoder_method
from divprune.errors import PruningError
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.encoding.method_inputs import capturing
from divprune.huggingface.encoding.pixel_dedup import deduplicating, require_dedup
from divprune.huggingface.encoding.tome_encoder import (
    encoded_tokens,
    merging_patches,
    require_mergeable,
    require_usual_pass,
)
from divprune.methods.base import Method
from divprune.methods.item_context import Modality
from divprune.methods.vision_inputs import VISION_NEEDS, CapturedVision


@dataclass(frozen=True)
class EncodedLess:
    """What the vision encoder gave with an option.

    Attributes:
        output: as long as without the option.
        encoded: (n,) int64 ascending: which of its tokens were encoded; the others are copies of these.
        captured: what the method reads of the encoder, of all patches; None if it reads nothing.
    """

    output: ModelOutput
    encoded: Tensor
    captured: CapturedVision | None = None


def require_encoder_option(adapter: ModelAdapter, config: PruningConfig) -> None:
    """Refuse an encoder option that does not fit the model or the method.

    Raises:
        UnsupportedModelError: the model's vision encoder cannot do it.
        ValueError: the option is out of range for this encoder, or the method reads what the option changes.
    """
    option = config.encoder
    if option is None:
        return
    require_encoder_method(option, config.method)
    if isinstance(option, PixelDedup):
        require_dedup(adapter)
    else:
        require_mergeable(adapter, option)


def encode_less(
    adapter: ModelAdapter,
    option: TomeEncoder | PixelDedup,
    method: Method,
    modality: Modality,
    inputs: Mapping[str, Any],
    encode_pixels: Callable[..., ModelOutput],
) -> EncodedLess:
    """Run the vision encoder with an option.

    Args:
        adapter: the model.
        option: which fits model and method, see `require_encoder_option`.
        method: whose needs are captured.
        modality: of what is encoded.
        inputs: of the call.
        encode_pixels: runs the encoder.

    Raises:
        PruningError: videos, where the option is for images alone; or the encoder would not run as the option expects.
    """
    if isinstance(option, PixelDedup):
        return _deduplicated(adapter, option, method, encode_pixels)
    require_usual_pass(adapter, inputs)
    if modality != "image":
        raise PruningError(f"encoder option {option.name!r} is for images, got {modality}s; leave `encoder` out")
    with merging_patches(adapter, option) as merged:
        output = encode_pixels(return_dict=True)
    return EncodedLess(output, encoded_tokens(adapter, merged, modality, inputs, option))


def _deduplicated(
    adapter: ModelAdapter, option: PixelDedup, method: Method, encode_pixels: Callable[..., ModelOutput]
) -> EncodedLess:
    with deduplicating(adapter, option) as units:
        if not method.needs & VISION_NEEDS:
            return EncodedLess(encode_pixels(return_dict=True), units.left)
        with capturing(adapter, method) as passes:
            output = encode_pixels(return_dict=True)
    (only,) = passes
    return EncodedLess(output, units.left, only.at(units.patches))
