"""From lmms-eval's documents to conversations."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from loguru import logger
from PIL import Image

from divprune.errors import EvaluationError
from divprune.media import image_suffixes, is_url, load_image, load_video
from divprune.prompting import Conversation, Message, MessagePart


@dataclass(frozen=True, slots=True)
class Videos:
    """How videos are shown to a model.

    Attributes:
        num_frames: frames sampled from a video.
        as_images: whether the frames are shown as images, for models that know nothing else.
    """

    num_frames: int = 8
    as_images: bool = False


def from_messages(messages: Iterable[dict[str, Any]], videos: Videos, system_prompt: str = "") -> Conversation:
    """Return the conversation that a task's `doc_to_messages` wrote.

    Args:
        messages: with "role" and "content": words, or pieces of type "text", "image" or "video".
        videos: how videos are shown.
        system_prompt: takes the place of a task's own system message.

    Raises:
        EvaluationError: a piece is of another type.
        MediaError: an image or video cannot be read.
    """
    written = [_message(message, videos) for message in messages]
    if system_prompt:
        own = [message for message in written if message.role != "system"]
        return [Message("system", (system_prompt,)), *own]
    return written


def from_context(
    context: str, visuals: Sequence[Any], videos: Videos, placeholders: Sequence[str], system_prompt: str = ""
) -> Conversation:
    """Return the conversation of a task that gives words and media apart.

    Where the words hold as many placeholders as there are media, media take their places; else they lead.

    Args:
        context: the words.
        visuals: images and paths.
        videos: how videos are shown.
        placeholders: what may stand for a medium in the words.
        system_prompt: words before the conversation.

    Raises:
        EvaluationError: a medium is of an unknown kind.
        MediaError: an image or video cannot be read.
    """
    media = [_shown(each, None, videos) for each in visuals]
    parts: list[MessagePart] = [*chain.from_iterable(media), context]
    for token in placeholders:
        first, *others = context.split(token)
        if media and len(others) == len(media):
            following = [part for shown, words in zip(media, others, strict=True) for part in (*shown, words)]
            parts = [part for part in (first, *following) if not isinstance(part, str) or part.strip()]
    user = Message("user", tuple(parts))
    return [Message("system", (system_prompt,)), user] if system_prompt else [user]


def _message(message: dict[str, Any], videos: Videos) -> Message:
    content = message["content"]
    if isinstance(content, str):
        return Message(message["role"], (content,))
    return Message(message["role"], tuple(chain.from_iterable(_parts(piece, videos) for piece in content)))


def _parts(piece: dict[str, Any], videos: Videos) -> tuple[MessagePart, ...]:
    kind = piece.get("type")
    if kind == "text":
        return (str(piece["text"]),)
    if kind not in ("image", "video"):
        raise EvaluationError(f"messages must hold text, images and videos, got {kind!r}")
    return _shown(piece.get("url"), kind, videos)


def _shown(source: Any, kind: str | None, videos: Videos) -> tuple[MessagePart, ...]:
    """Return an image, or a video as the model takes it."""
    if isinstance(source, Image.Image):
        return (source,)
    if not isinstance(source, (str, Path)):
        raise EvaluationError(
            f"media must be images or paths of files, got {type(source).__name__}; parts of videos are not supported"
        )
    is_image = kind == "image" or is_url(source) or (kind is None and Path(source).suffix.lower() in image_suffixes())
    medium = load_image(source) if is_image else load_video(Path(source), videos.num_frames)
    if medium.note:
        logger.warning(medium.note)
    return (medium,) if is_image or not videos.as_images else medium.frames
