"""A question about some media, as the model wants it: chat template, placeholders, tensors, and the answer back.

image / video -> **processor** -> vision encoder -> ... -> LLM -> **answer**.
"""

from collections.abc import Sequence
from typing import Any

import numpy
from torch import Tensor

from divprune.cli.failures import CommandError
from divprune.cli.loading import LoadedModel
from divprune.errors import first_line
from divprune.media import Medium


def build_inputs(loaded: LoadedModel, media: Sequence[Medium], prompt: str) -> dict[str, Any]:
    """Build the inputs of `generate` for one question about some pictures and clips.

    Returns:
        The processor's tensors, batch of one, on the model's device.

    Raises:
        CommandError: the question contains a placeholder, or the processor refuses these media.
    """
    _refuse_placeholders(loaded, prompt)
    images = [medium.frames[0] for medium in media if medium.kind == "image"]
    clips = [medium for medium in media if medium.kind == "video"]
    arguments: dict[str, Any] = {"text": [_prompt_text(loaded, media, prompt)], "return_tensors": "pt"}
    if images:
        arguments["images"] = images
    if clips:
        arguments |= _video_arguments(clips)
    try:
        inputs = loaded.processor(**arguments)
    except (ValueError, TypeError) as error:
        raise CommandError(f"the processor of {loaded.name} refuses the input: {first_line(error)}") from None
    wanted = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
    return {name: _on_device(value, loaded) for name, value in wanted.items()}


def decode_answer(loaded: LoadedModel, inputs: dict[str, Any], sequences: Tensor) -> str:
    """The text that `generate` added to the prompt of a batch of one."""
    new_tokens = sequences[:, inputs["input_ids"].shape[1] :]
    text: str = loaded.processor.batch_decode(new_tokens, skip_special_tokens=True)[0]
    return text.strip()


def has_chat_template(loaded: LoadedModel) -> bool:
    """Whether the checkpoint says how a conversation is written."""
    return bool(getattr(loaded.processor, "chat_template", None))


def _prompt_text(loaded: LoadedModel, media: Sequence[Medium], prompt: str) -> str:
    if has_chat_template(loaded):
        content = [*({"type": medium.kind} for medium in media), {"type": "text", "text": prompt}]
        messages: list[Any] = [{"role": "user", "content": content}]
        return str(loaded.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
    return "\n".join([*(_placeholder(loaded, medium.kind) for medium in media), prompt])


def _placeholder(loaded: LoadedModel, kind: str) -> str:
    token = getattr(loaded.processor, f"{kind}_token", None)
    if not isinstance(token, str):
        raise CommandError(f"{loaded.name} has neither a chat template nor a placeholder for a {kind}")
    return token


def _refuse_placeholders(loaded: LoadedModel, prompt: str) -> None:
    tokens = (getattr(loaded.processor, f"{kind}_token", None) for kind in ("image", "video"))
    for token in tokens:
        if isinstance(token, str) and token in prompt:
            raise CommandError(f"the prompt contains {token!r}, which stands for a picture; leave it out")


def _video_arguments(clips: Sequence[Medium]) -> dict[str, Any]:
    """Frames are sampled already; the metadata tell models that know time when each one was."""
    metadata = [
        {
            "total_num_frames": clip.num_frames,
            "fps": clip.frames_per_second,
            "frames_indices": list(clip.frame_indices),
            "width": clip.frames[0].width,
            "height": clip.frames[0].height,
        }
        for clip in clips
    ]
    videos = [numpy.stack([numpy.asarray(frame) for frame in clip.frames]) for clip in clips]
    return {"videos": videos, "video_metadata": metadata, "do_sample_frames": False}


def _on_device(value: Tensor, loaded: LoadedModel) -> Tensor:
    """Pictures get the model's dtype, ids and masks keep theirs."""
    return value.to(loaded.model.device, loaded.model.dtype if value.is_floating_point() else None)
