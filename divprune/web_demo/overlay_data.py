"""Lay out images, the places of their tokens and the order of the picks as plain values, which `viewer.js` draws."""

from collections.abc import Sequence
from typing import Any

from divprune.budget import Budget
from divprune.demo.overlays import data_uri
from divprune.huggingface import TokenBox
from divprune.media import Medium
from divprune.web_demo.options import RATIO_STEPS
from divprune.web_demo.shared_model import ItemPicks

_SMALL = 256  # pixels of a side; images below are enlarged without smoothing


def frames_data(medium: Medium) -> list[dict[str, Any]]:
    """Return the frames of an image or video, pixels included."""
    return [frame_data(medium, position, data_uri(medium.frames[position])) for position in range(len(medium.frames))]


def frame_data(medium: Medium, position: int, source: str) -> dict[str, Any]:
    """Return one frame.

    Args:
        medium: the image or video.
        position: among its sampled frames.
        source: where a browser finds its pixels.
    """
    image, title = medium.frames[position], medium.name
    if medium.kind == "video":
        title += f", frame {medium.frame_indices[position] + 1} of {medium.num_frames}"
    size = {"width": image.width, "height": image.height}
    return {"source": source, "title": title, **size, "pixelated": max(image.size) < _SMALL}


def boxes_data(boxes: Sequence[TokenBox | None]) -> list[list[float] | None]:
    """Return [frame, left, top, width, height] of each token, to a hundredth of a pixel."""
    return [
        None
        if box is None
        else [
            box.frame,
            *(round(value, 2) for value in (box.left, box.top, box.right - box.left, box.bottom - box.top)),
        ]
        for box in boxes
    ]


def overlay_data(
    spec: str, picks: Sequence[ItemPicks], frames: Sequence[list[dict[str, Any]]], *, is_nested: bool
) -> dict[str, Any]:
    """Return what is drawn of a method.

    Args:
        spec: the method.
        picks: of each image or video; all of their tokens where the picks are nested.
        frames: `frames_data` of each.
        is_nested: whether a smaller keep ratio is a shorter piece of the order; else nothing is cut off it.
    """
    items = [
        {
            "frames": own,
            "boxes": boxes_data(item.boxes),
            "order": list(item.order),
            "counts": counts(item.num_visual_tokens) if is_nested else None,
        }
        for item, own in zip(picks, frames, strict=True)
    ]
    return {"method": spec, "nested": is_nested, "steps": RATIO_STEPS, "items": items}


def on_step(keep_ratio: float) -> float:
    """Return the keep ratio at the slider's nearest step; somebody may type others."""
    return min(max(round(keep_ratio * RATIO_STEPS), 1), RATIO_STEPS) / RATIO_STEPS


def counts(num_visual_tokens: int) -> list[int]:
    """Return how many of an item's tokens stay at each step of the slider, from the first."""
    return [Budget(step / RATIO_STEPS).count(num_visual_tokens) for step in range(1, RATIO_STEPS + 1)]
