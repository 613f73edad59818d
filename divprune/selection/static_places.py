"""Places of a video that stay as they are through a segment, so that one token can stand for all its frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

from divprune.lazy_torch import torch
from divprune.selection.segments import first_frames, segment_lengths

if TYPE_CHECKING:
    from torch import Tensor


def lowest_in_segments(similarity: Tensor, segments: Tensor) -> Tensor:
    """Return (S, P) the lowest similarity (T - 1, P) within each segment; infinite in segments of one frame.

    Args:
        similarity: of each frame to the next, at each place.
        segments: (T,) int64, see `selection.segments`.
    """
    inside = segments[1:] == segments[:-1]
    lowest = similarity.new_full((int(segments[-1]) + 1, similarity.shape[1]), torch.inf)
    index = segments[1:][inside].unsqueeze(1).expand(-1, similarity.shape[1])
    return lowest.scatter_reduce(0, index, similarity[inside], "amin")


def static_tokens(closeness: Tensor, threshold: float, segments: Tensor, num_left: int) -> Tensor:
    """Find the tokens whose place is static through their segment.

    A place is static in a segment of at least two frames if its closeness is above `threshold`. If averaging all of
    them left fewer than `num_left` tokens, the threshold rises: the closest places are static first, of equal ones
    those of the first segment and the lowest place, as long as `num_left` tokens remain.

    Args:
        closeness: (S, P) how alike the frames of a segment are at a place.
        threshold: above which a place is static.
        segments: (T,) int64, see `selection.segments`.
        num_left: how many tokens must be left when each static place of a segment is one token.

    Returns:
        (T, P) bool.
    """
    num_places, lengths = closeness.shape[1], segment_lengths(segments)
    saved = (lengths - 1).unsqueeze(1).expand(-1, num_places)
    candidates = (closeness > threshold) & (saved > 0)
    order = closeness.masked_fill(~candidates, -torch.inf).flatten().sort(descending=True, stable=True).indices
    total = torch.where(candidates, saved, 0).flatten()[order].cumsum(dim=0)
    room = len(segments) * num_places - num_left
    is_static = torch.zeros_like(candidates).flatten()
    is_static[order] = total <= room
    return (is_static.view_as(candidates) & candidates)[segments]


def static_anchors(is_static: Tensor, segments: Tensor) -> Tensor:
    """Return (T * P,) int64 the token that stands for each: that of the segment's first frame, if its place is static.

    Args:
        is_static: (T, P) bool, see `static_tokens`.
        segments: (T,) int64, see `selection.segments`.
    """
    num_frames, num_places = is_static.shape
    own = torch.arange(num_frames * num_places, device=is_static.device).view(num_frames, num_places)
    return torch.where(is_static, own[first_frames(segments)], own).flatten()
