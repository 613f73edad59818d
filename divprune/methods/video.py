"""What methods for videos share: the frames of a video, and how alike neighbouring ones are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from divprune.lazy_torch import torch
from divprune.methods.base import Method, require_modality
from divprune.methods.grids import grid_of
from divprune.methods.item_context import ItemContext
from divprune.methods.token_groups import DROPPED
from divprune.selection.density_peaks import NO_CENTRE
from divprune.selection.distances import full_precision, unit_rows

if TYPE_CHECKING:
    from torch import Tensor


def video_frames(visual_tokens: Tensor, context: ItemContext, method: Method) -> Tensor:
    """Return the tokens (M, d) of a video by frames (T, P, d), in float32 at least.

    Raises:
        ValueError: The item is no video.
    """
    require_modality(method, context.modality)
    if not bool(torch.isfinite(visual_tokens).all()):
        raise ValueError(f"visual_tokens must be finite for method {method.name!r}, got NaN or infinity")
    precise = visual_tokens.to(torch.promote_types(visual_tokens.dtype, torch.float32))
    num_frames = grid_of(context, method.name)[0]
    return precise.view(num_frames, -1, precise.shape[1])


def place_similarity(frames: Tensor) -> Tensor:
    """Return (T - 1, P) the cosine similarity of each token of (T, P, d) to that at its place in the next frame."""
    return row_similarity(frames[:-1], frames[1:])


def frame_similarity(frames: Tensor) -> Tensor:
    """Return (T - 1,) the cosine similarity of the mean token of each frame (T, P, d) to that of the next."""
    mean = frames.mean(dim=1)
    return row_similarity(mean[:-1], mean[1:])


def row_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Return (...) the cosine similarity of the tokens `first` (..., d) to those of `second` (..., d)."""
    with full_precision(first.device):
        return (unit_rows(first) * unit_rows(second)).sum(dim=-1)


def first_of(order: Tensor, counts: Tensor) -> Tensor:
    """Return (B, n) bool, True at the first `counts` (B,) tokens of the order (B, n)."""
    is_first = torch.arange(order.shape[1], device=order.device) < counts.unsqueeze(1)
    return torch.zeros_like(is_first).scatter(1, order, is_first)


def in_video(centres: Tensor) -> Tensor:
    """Return centres (T, P) within each frame, see `centres_of`, as token numbers (T * P,) of the whole video."""
    first = torch.arange(len(centres), device=centres.device).unsqueeze(1) * centres.shape[1]
    return torch.where(centres == NO_CENTRE, DROPPED, centres + first).flatten()
