"""Overlay images with the places of their kept tokens: what the HTML report draws."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from divprune.huggingface import ItemReport, PruningReport, TokenBox
from divprune.media import Medium

_MAX_SIDE = 1280  # pixels of an embedded image; boxes stay in pixels of the original
_MAX_PNG_SIDE = 512  # larger images are embedded as JPEG


@dataclass(frozen=True)
class Patch:
    """The place of one kept token, in pixels of the image.

    Attributes:
        token: index of the token among those of its image or video.
        pick: its place in the pick order, from 1.
    """

    token: int
    pick: int
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Figure:
    """One image, or one frame of a video, and its kept tokens.

    Attributes:
        identifier: unique within the page.
        title: name of the medium.
        frame: as in "frame 12 of 250"; empty for an image.
        width: of the original image, pixels.
        height: of the original image, pixels.
        source: the image as a data URI.
        pixelated: whether a viewer should enlarge it without smoothing.
        patches: the kept tokens that have a place in it, large ones first.
        num_kept: kept tokens of the whole medium.
        num_visual_tokens: all tokens of the whole medium.
        shared: whether it shows the tokens of the frame before once more (encoders may merge neighbouring frames).
        distance: smallest cosine distance between two kept tokens of the medium; None for a single one.
        num_without_place: kept tokens of the medium that are nowhere in it, such as newline tokens.
    """

    identifier: str
    title: str
    frame: str
    width: int
    height: int
    source: str
    pixelated: bool
    patches: tuple[Patch, ...]
    num_kept: int
    num_visual_tokens: int
    num_without_place: int
    distance: float | None
    shared: bool


def draw_media(
    media: Sequence[Medium], pruned: PruningReport, processor: Any, *, first_id: int | str = 0
) -> tuple[Figure, ...]:
    """Draw every image and sampled frame of a prompt.

    Args:
        media: in the order of the prompt.
        pruned: report of the pruned call, one item a medium.
        processor: the model's processor, which knows how it crops and scales.
        first_id: number of the prompt in the page, or what tells it from others there.
    """
    figures: list[Figure] = []
    for number, (medium, item) in enumerate(zip(media, pruned.items, strict=True)):
        boxes = item.boxes(image_size=medium.frames[0].size, processor=processor)
        for position, image in enumerate(medium.frames):
            identifier = f"figure-{first_id}-{number}-{position}"
            figures.append(_figure(identifier, medium, item, boxes, position, image))
    return tuple(figures)


def _figure(
    identifier: str,
    medium: Medium,
    item: ItemReport,
    boxes: Sequence[TokenBox | None],
    position: int,
    image: Image.Image,
) -> Figure:
    encoded = _encoded_frame(item, position)
    return Figure(
        identifier=identifier,
        title=medium.name,
        frame=f"frame {medium.frame_indices[position] + 1} of {medium.num_frames}" if medium.kind == "video" else "",
        width=image.width,
        height=image.height,
        source=data_uri(image),
        pixelated=max(image.size) < _MAX_PNG_SIDE // 2,
        patches=_patches(item, boxes, encoded),
        num_kept=item.num_kept,
        num_visual_tokens=item.num_visual_tokens,
        num_without_place=sum(box is None for box in boxes),
        distance=item.max_min_distance,
        shared=encoded != position,
    )


def _encoded_frame(item: ItemReport, position: int) -> int:
    """Return the frame whose tokens also show frame `position`: encoders that merge frames name the first of them."""
    if item.layout is None:
        return position
    return max((frame for frame in item.layout.frame.unique().tolist() if frame <= position), default=position)


def _patches(item: ItemReport, boxes: Sequence[TokenBox | None], frame: int) -> tuple[Patch, ...]:
    picks = {token: pick for pick, token in enumerate(item.selection_order.tolist(), start=1)}
    patches = [
        Patch(token, picks[token], box.left, box.top, box.right - box.left, box.bottom - box.top)
        for token, box in zip(item.kept_indices.tolist(), boxes, strict=True)
        if box is not None and box.frame == frame
    ]
    # Small patches lie on top, where the pointer reaches them.
    return tuple(sorted(patches, key=lambda patch: (-patch.width * patch.height, patch.pick)))


def data_uri(image: Image.Image) -> str:
    """Return the image as a data URI, scaled down if it is very large."""
    small = image.copy()
    small.thumbnail((_MAX_SIDE, _MAX_SIDE))
    format_name = "PNG" if max(small.size) <= _MAX_PNG_SIDE else "JPEG"
    buffer = io.BytesIO()
    small.save(buffer, format_name, quality=88, optimize=True)
    return f"data:image/{format_name.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
