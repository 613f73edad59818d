"""Dense labels for training the language model on videos: what each token's object has done so far.

A causal model can tell them at every token, from it and the earlier ones; answers are read off them.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from divprune.embedded.scenes import COLORS
from divprune.embedded.videos import DIRECTIONS, MAX_VIDEO_OBJECTS, NUM_VIDEO_FRAMES, Video, VideoObject
from tools.embedded.labels import IGNORED, owners_of
from tools.embedded.model import PATCH_SIZE, PATCHES_PER_SIDE

TOKEN_LABELS: dict[str, int] = {
    "frame": NUM_VIDEO_FRAMES,
    "arrival": NUM_VIDEO_FRAMES,  # the frame in which the object appeared
    "rank": MAX_VIDEO_OBJECTS + 1,  # how many had appeared by then, itself included
    "direction": len(DIRECTIONS) + 1,  # 0: it stands
    "same_shape": MAX_VIDEO_OBJECTS + 1,  # how many of its shape were there so far, itself included
    "total": MAX_VIDEO_OBJECTS + 1,  # how many of any
    "color": len(COLORS),
    "first_column": PATCHES_PER_SIDE // 2,  # where its centre was when it appeared, in tokens
    "first_row": PATCHES_PER_SIDE // 2,
}
"""Labels of a token that shows an object, and their number of classes; other tokens are ignored."""

_SEEN_MOVING = 2  # frames after which a movement is seen


def token_labels(video: Video) -> torch.Tensor:
    """Return (len(TOKEN_LABELS), VIDEO_TOKENS) int64, IGNORED at background and slivers."""
    frames = [_frame_labels(video, frame) for frame in range(NUM_VIDEO_FRAMES)]
    return torch.from_numpy(np.concatenate(frames, axis=1))


def _frame_labels(video: Video, frame: int) -> NDArray[np.int64]:
    shown = [item for item in video.objects if item.at(frame) is not None]
    columns = [_classes(item, video, frame) for item in shown]
    ignored = [IGNORED] * len(TOKEN_LABELS)
    # Background first, then the objects, then slivers (owner -1).
    table = np.array([ignored, *columns, ignored], dtype=np.int64)
    side = PATCHES_PER_SIDE // 2
    owners, _ = owners_of(video.scenes[frame])
    owner = owners.reshape(side, 2, side, 2).max(axis=(1, 3)).flatten()
    labels: NDArray[np.int64] = table[owner].T
    return labels


def _classes(item: VideoObject, video: Video, frame: int) -> list[int]:
    """The classes of an object's tokens in a frame, in the order of TOKEN_LABELS."""
    so_far = [other for other in video.objects if other.first_frame <= frame]
    by_then = [other for other in video.objects if other.first_frame <= item.first_frame]
    way = 0 if item.direction is None else 1 + tuple(DIRECTIONS).index(item.direction)
    return [
        frame,
        item.first_frame,
        len(by_then),
        way if frame - item.first_frame >= _SEEN_MOVING else IGNORED,
        sum(other.shape == item.shape for other in so_far),
        len(so_far),
        tuple(COLORS).index(item.color),
        item.thing.center_x // (2 * PATCH_SIZE),
        item.thing.center_y // (2 * PATCH_SIZE),
    ]
