"""Which models an encoder option fits, and the encoder run with it: fewer patches, and which tokens they became."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from transformers.utils.generic import ModelOutput

from divprune.config import PruningConfig
from divprune.encoder_options import EncoderOption, TomeEncoder, require_encoder_method
from divprune.errors import PruningError, UnsupportedModelError
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.encoding.tome_encoder import encoded_tokens, merging_patches, require_mergeable
from divprune.methods.item_context import Modality


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
