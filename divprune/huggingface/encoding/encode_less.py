"""Which models an encoder option fits, and the encoder run with it: fewer patches, and which tokens they became."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from transformers.utils.generic import ModelOutput

from divprune.config import PruningConfig
from divprune.encoder_options import EncoderOption, TomeEncoder
from divprune.errors import PruningError, UnsupportedModelError
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.encoding.tome_encoder import encoded_tokens, merging_patches, require_mergeable
from divprune.methods.item_context import Modality
from divprune.methods.vision_inputs import VISION_NEEDS

_GRID_NEEDS = frozenset({"grid", "pieces"})


def require_encoder_option(adapter: ModelAdapter, config: PruningConfig) -> None:
    """Refuse an encoder option that does not fit the model or the method.

    Raises:
        UnsupportedModelError: the model's vision encoder cannot do it.
        ValueError: the option is out of range for this encoder, or the method reads what the option changes.
    """
    option, method = config.encoder, config.method
    if option is None:
        return
    reads = sorted(method.needs & (VISION_NEEDS | _GRID_NEEDS))
    if reads:
        raise ValueError(
            f"encoder must be None for method {method.name!r}, got '{option}': the method reads {', '.join(reads)} of "
            "all patches, of which the option leaves fewer; choose one that needs the visual tokens alone, such as "
            "'divprune'"
        )
    if method.layers:
        raise ValueError(
            f"encoder must be None for method {method.name!r}, got '{option}': the method drops tokens inside the "
            "language model; choose one that acts before it, such as 'divprune'"
        )
    if not isinstance(option, TomeEncoder):
        raise UnsupportedModelError(
            f"encoder option {option.name!r} cannot be used with {adapter.family.name!r} models"
        )
    require_mergeable(adapter, option)


def encode_less(
    adapter: ModelAdapter,
    option: EncoderOption,
    modality: Modality,
    inputs: Mapping[str, Any],
    encode_pixels: Callable[..., ModelOutput],
) -> tuple[ModelOutput, Tensor]:
    """Run the vision encoder with an option.

    Args:
        adapter: the model.
        option: which fits it, see `require_encoder_option`.
        modality: of what is encoded.
        inputs: of the call.
        encode_pixels: runs the encoder.

    Returns:
        Its output, as long as without the option, and (n,) int64 ascending: which of its tokens were encoded. The
        others are copies of these.

    Raises:
        PruningError: videos, where the option is for images alone.
    """
    if not isinstance(option, TomeEncoder):
        raise UnsupportedModelError(
            f"encoder option {option.name!r} cannot be used with {adapter.family.name!r} models"
        )
    if modality != "image":
        raise PruningError(f"encoder option {option.name!r} is for images, got {modality}s; leave `encoder` out")
    with merging_patches(adapter, option) as merged:
        output = encode_pixels(return_dict=True)
    return output, encoded_tokens(adapter, merged, modality, inputs, option)
