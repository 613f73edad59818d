"""Conversations about media as a model wants them: chat template, placeholders, tensors, and the answers back.

image / video -> **processor** -> vision encoder -> ... -> LLM -> **answer**.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor

from divprune.checkpoints import LoadedModel
from divprune.errors import PromptError, first_line
from divprune.media import Medium, as_rgb

MessagePart = str | Image.Image | Medium
"""A piece of a message: words, an image, or an image or video from a file."""


@dataclass(frozen=True)
class Message:
    """What somebody says.

    Attributes:
        role: "user", "assistant" or "system".
        parts: words and media, in order.
    """

    role: str
    parts: tuple[MessagePart, ...]


Conversation = Sequence[Message]

# Qwen-Omni processors take one rate for all videos of a call, and none from the metadata.
_OMNI_SECONDS = "video_second_per_grid"


def build_inputs(loaded: LoadedModel, media: Sequence[Medium], prompt: str) -> dict[str, Any]:
    """Build the inputs of `generate` for one question about some images and videos.

    Returns:
        The processor's tensors, batch of one, on the model's device.

    Raises:
        PromptError: the question contains a placeholder, or the processor refuses these media.
    """
    return build_batch(loaded, [[Message("user", (*media, prompt))]])


def build_batch(loaded: LoadedModel, conversations: Sequence[Conversation]) -> dict[str, Any]:
    """Build the inputs of `generate` for conversations that wait for an answer each.

    Args:
        loaded: the model and its processor.
        conversations: at least one; their prompts are padded on the left.

    Returns:
        The processor's tensors, one row a conversation, on the model's device.

    Raises:
        PromptError: words contain a placeholder, or the processor refuses these media, or takes them only one by one.
    """
    arguments: dict[str, Any] = {"text": [_prompt_text(loaded, each) for each in conversations], "return_tensors": "pt"}
    images = [[_image(part) for part in _media(each, "image")] for each in conversations]
    videos = [part for each in conversations for part in _media(each, "video") if isinstance(part, Medium)]
    if any(images):
        flat = [image for of_row in images for image in of_row]
        arguments["images"] = images if len(images) > 1 and all(images) else flat
    if videos:
        arguments |= _video_arguments(videos)
    if len(conversations) > 1:
        arguments |= {"padding": True, "padding_side": "left"}
    try:
        inputs = loaded.processor(**arguments)
    except (ValueError, TypeError, IndexError) as error:
        raise PromptError(f"the processor of {loaded.name} refuses the input: {first_line(error)}") from None
    wanted = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
    _check_length(loaded, wanted["input_ids"])
    if _OMNI_SECONDS in wanted:
        wanted[_OMNI_SECONDS] = _seconds_per_grid(loaded, videos, wanted[_OMNI_SECONDS])
    return {name: _on_device(value, loaded) for name, value in wanted.items()}


def decode_answer(loaded: LoadedModel, inputs: dict[str, Any], sequences: Tensor) -> str:
    """Return the text that `generate` added to the prompt of a batch of one."""
    return decode_answers(loaded, inputs, sequences)[0]


def decode_answers(loaded: LoadedModel, inputs: dict[str, Any], sequences: Tensor) -> list[str]:
    """Return the texts that `generate` added to the prompts."""
    new_tokens = sequences[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in loaded.processor.batch_decode(new_tokens, skip_special_tokens=True)]


def has_chat_template(loaded: LoadedModel) -> bool:
    """Tell whether the checkpoint says how a conversation is written."""
    return bool(getattr(loaded.processor, "chat_template", None))


def takes_videos(loaded: LoadedModel) -> bool:
    """Tell whether the checkpoint's processor reads videos; others would leave them out without a word."""
    return placeholder(loaded, "video") is not None or hasattr(loaded.processor, "video_processor")


def placeholder(loaded: LoadedModel, kind: str) -> str | None:
    """Return what stands for an image ("image") or video ("video") in a prompt, None if the processor does not tell."""
    token = getattr(loaded.processor, f"{kind}_token", None)
    return token if isinstance(token, str) else None


def _prompt_text(loaded: LoadedModel, conversation: Conversation) -> str:
    for message in conversation:
        _refuse_placeholders(loaded, message.parts)
    if has_chat_template(loaded):
        messages: list[Any] = [{"role": each.role, "content": list(_content(each.parts))} for each in conversation]
        try:
            return str(loaded.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
        # A template raises whatever the operations of its author raise.
        except Exception as error:
            raise PromptError(f"the chat template of {loaded.name} fails: {first_line(error)[:120]}") from None
    return "\n".join(_written(loaded, part) for message in conversation for part in message.parts)


def _content(parts: Iterable[MessagePart]) -> Iterator[dict[str, str]]:
    for part in parts:
        yield {"type": "text", "text": part} if isinstance(part, str) else {"type": _kind(part)}


def _written(loaded: LoadedModel, part: MessagePart) -> str:
    if isinstance(part, str):
        return part
    token = placeholder(loaded, _kind(part))
    if token is None:
        raise PromptError(f"{loaded.name} has neither a chat template nor a placeholder for a {_kind(part)}")
    return token


def _refuse_placeholders(loaded: LoadedModel, parts: Iterable[MessagePart]) -> None:
    tokens = [placeholder(loaded, kind) for kind in ("image", "video")]
    for words in parts:
        for token in tokens:
            if isinstance(words, str) and token is not None and token in words:
                raise PromptError(f"the prompt contains {token!r}, which stands for an image; leave it out")


def _check_length(loaded: LoadedModel, input_ids: Tensor) -> None:
    """Refuse words that the model has no positions for; visual tokens may be pruned, and do not count."""
    config = loaded.model.config
    most = getattr(config.get_text_config(), "max_position_embeddings", None)
    names = ("image_token_id", "image_token_index", "video_token_id", "video_token_index", "pad_token_id")
    others = [getattr(owner, name, None) for name in names for owner in (config, config.get_text_config())]
    is_word = ~torch.isin(input_ids, torch.tensor([each for each in others if isinstance(each, int)]))
    longest = int(is_word.sum(dim=1).max())
    if isinstance(most, int) and longest > most:
        raise PromptError(
            f"the prompt has {longest} tokens of text, and {loaded.name} takes {most}; ask with less text"
        )


def _kind(part: Image.Image | Medium) -> str:
    return part.kind if isinstance(part, Medium) else "image"


def _media(conversation: Conversation, kind: str) -> list[Image.Image | Medium]:
    parts = [part for message in conversation for part in message.parts if not isinstance(part, str)]
    return [part for part in parts if _kind(part) == kind]


def _image(part: Image.Image | Medium) -> Image.Image:
    return part.frames[0] if isinstance(part, Medium) else as_rgb(part)


def _video_arguments(videos: Sequence[Medium]) -> dict[str, Any]:
    """Frames are sampled already; the metadata tell models that know time when each one was."""
    metadata = []
    for video in videos:
        rate, indices, total = video.clock
        size = {"width": video.frames[0].width, "height": video.frames[0].height}
        times = {"total_num_frames": total, "fps": rate, "frames_indices": list(indices), "duration": video.seconds}
        metadata.append(times | size)
    arrays = [numpy.stack([numpy.asarray(frame) for frame in video.frames]) for video in videos]
    return {"videos": arrays, "video_metadata": metadata, "do_sample_frames": False}


def _seconds_per_grid(loaded: LoadedModel, videos: Sequence[Medium], guessed: Tensor) -> Tensor:
    """Return the seconds between the temporal patches of each video, where its length is known."""
    frames_merged = loaded.processor.video_processor.temporal_patch_size
    known = [video.seconds and frames_merged * video.seconds / len(video.frames) for video in videos]
    return guessed.new_tensor([exact or guess for exact, guess in zip(known, guessed.tolist(), strict=True)])


def _on_device(value: Tensor, loaded: LoadedModel) -> Tensor:
    """Images get the model's dtype, ids and masks keep theirs."""
    return value.to(loaded.model.device, loaded.model.dtype if value.is_floating_point() else None)
