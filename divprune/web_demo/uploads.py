"""What visitors upload: images and short videos, read as everywhere in the package, and refused in the page's words."""

import mimetypes
from dataclasses import replace
from pathlib import Path

from divprune.errors import MediaError
from divprune.media import Medium, decode_image, load_video

MAX_UPLOAD_BYTES = 2**26
"""As much as is downloaded from an address at most."""
_WORDS = {
    "a video goes with `videos`": "a video's name ends in .mp4, .webm or the like",
    "; the first is used, another by `page`": "; the first is used",
}


def read_upload(path: Path, num_frames: int) -> Medium:
    """Decode an uploaded file, called by its name alone.

    Args:
        path: where it lies.
        num_frames: sampled from a video; its name tells that it is one.

    Raises:
        MediaError: it is neither, or damaged, or too large.
    """
    name = path.name
    if path.stat().st_size > MAX_UPLOAD_BYTES:
        raise MediaError(f"{name} has more than {MAX_UPLOAD_BYTES:,} bytes; give a smaller one")
    is_video = (mimetypes.guess_type(name)[0] or "").startswith("video/")
    try:
        medium = load_video(path, num_frames) if is_video else decode_image(path.read_bytes(), name)
    except MediaError as error:
        raise MediaError(_plain(str(error), path)) from None
    return replace(medium, name=name, note=_plain(medium.note, path))


def _plain(text: str, path: Path) -> str:
    """Take folders and names of arguments out of a message."""
    text = text.replace(str(path), path.name)
    for told, words in _WORDS.items():
        text = text.replace(told, words)
    return text
