"""The model's own vision encoder and projector, called the way its family wants it."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from divprune.huggingface.model_inputs import PIXEL_INPUTS, Kind

COMPRESSION = "video_compression_mask"
"""VideoLLaMA3's processor says with it which video tokens have no placeholder, because little moves there."""


def run_encoder(model: PreTrainedModel, kind: Kind, inputs: Mapping[str, Any]) -> tuple[ModelOutput, set[str]]:
    """Encodes the pictures or videos of a call.

    Args:
        model: the model.
        kind: the inputs bring pixels of this kind.
        inputs: what `generate` or `forward` was called with.

    Returns:
        The encoder's output, `pooler_output` with the visual tokens that have placeholders, and the names of the
        inputs that it has used up.
    """
    encoder = getattr(model.base_model, f"get_{kind}_features", None)
    if encoder is None:
        # Perception LM encodes the frames of a video as it does the tiles of a picture.
        name = next(name for name in PIXEL_INPUTS[kind] if inputs.get(name) is not None)
        encoder = cast(Callable[..., ModelOutput], model.base_model.get_image_features)
        return encoder(inputs[name], return_dict=True), {name}
    # As transformers' own generate does: the encoder takes, and uses up, whatever its signature names.
    arguments = {name: inputs[name] for name in inspect.signature(encoder).parameters if name in inputs}
    output: ModelOutput = encoder(**arguments, return_dict=True)
    if kind == "video" and inputs.get(COMPRESSION) is not None:
        output["pooler_output"] = _compressed(output["pooler_output"], inputs[COMPRESSION])
    return output, arguments.keys() | ({COMPRESSION} if kind == "video" else set())


def _compressed(videos: list[Tensor], stays: Tensor) -> list[Tensor]:
    """Tokens (M, d) of each video -> those that `stays`, (total,) bool, says."""
    parts = stays.to(videos[0].device).split([len(video) for video in videos])
    return [video[part] for video, part in zip(videos, parts, strict=True)]
