"""From lmms-eval's documents to conversations."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from divprune.errors import EvaluationError
from divprune.media import load_clip, load_picture
from divprune.prompting import Conversation, Message, Part

PICTURE_FILES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tiff", ".webp")


def from_messages(messages: Iterable[dict[str, Any]], num_frames: int, system_prompt: str = "") -> Conversation:
    """Return the conversation that a task's `doc_to_messages` wrote.

    Args:
        messages: with "role" and "content": words, or pieces of type "text", "image" or "video".
        num_frames: frames sampled from a clip.
        system_prompt: takes the place of a task's own system message.

    Raises:
        EvaluationError: a piece is of another type.
        MediaError: a picture or clip cannot be read.
    """
    written = [_message(message, num_frames) for message in messages]
    if system_prompt:
        own = [message for message in written if message.role != "system"]
        return [Message("system", (system_prompt,)), *own]
    return written


def from_context(
    context: str, visuals: Sequence[Any], num_frames: int, placeholders: Sequence[str], system_prompt: str = ""
) -> Conversation:
    """Return the conversation of a task that gives words and media apart.

    Where the words hold as many placeholders as there are media, media take their places; else they lead.

    Args:
        context: the words.
        visuals: pictures and paths.
        num_frames: frames sampled from a clip.
        placeholders: what may stand for a medium in the words.
        system_prompt: words before the conversation.

    Raises:
        EvaluationError: a medium is of an unknown kind.
        MediaError: a picture or clip cannot be read.
    """
    media = [_medium(each, None, num_frames) for each in visuals]
    parts: list[Part] = [*media, context]
    for token in placeholders:
        pieces = context.split(token)
        if media and len(pieces) == len(media) + 1:
            between = [part for pair in zip(pieces, media, strict=False) for part in pair]
            parts = [part for part in [*between, pieces[-1]] if not isinstance(part, str) or part.strip()]
    user = Message("user", tuple(parts))
    return [Message("system", (system_prompt,)), user] if system_prompt else [user]


def _message(message: dict[str, Any], num_frames: int) -> Message:
    content = message["content"]
    if isinstance(content, str):
        return Message(message["role"], (content,))
    return Message(message["role"], tuple(_part(piece, num_frames) for piece in content))


def _part(piece: dict[str, Any], num_frames: int) -> Part:
    kind = piece.get("type")
    if kind == "text":
        return str(piece["text"])
    if kind not in ("image", "video"):
        raise EvaluationError(f"messages must hold text, images and videos, got {kind!r}")
    return _medium(piece.get("url"), kind, num_frames)


def _medium(source: Any, kind: str | None, num_frames: int) -> Part:
    if isinstance(source, Image.Image):
        return source
    if not isinstance(source, (str, Path)):
        raise EvaluationError(
            f"media must be pictures or paths of files, got {type(source).__name__}; parts of clips are not supported"
        )
    path = Path(source)
    is_picture = path.suffix.lower() in PICTURE_FILES if kind is None else kind == "image"
    return load_picture(path) if is_picture else load_clip(path, num_frames)
