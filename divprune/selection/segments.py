"""Segmentation of a video into runs of frames that belong together.

A segmentation of T frames is (T,) int64, the number of each frame's segment: 0, 0, 1, 1, 1, 2, ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from divprune.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor


def segments_by_threshold(similarity: Tensor, threshold: float, min_segments: int = 1) -> Tensor:
    """Cut a video where neighbouring frames differ.

    Cuts lie between frames whose similarity is below `threshold`; if that makes fewer than `min_segments`, at the
    lowest similarities, of equal ones at the first.

    Args:
        similarity: (T - 1,) of each frame to the next.
        threshold: where to cut.
        min_segments: at least so many segments, or one a frame if there are fewer frames.

    Returns:
        (T,) int64 segments.
    """
    num_cuts = min(max(int((similarity < threshold).sum()), min_segments - 1), len(similarity))
    lowest = similarity.sort(stable=True).indices[:num_cuts]
    return segments_from_cuts(torch.zeros_like(similarity, dtype=torch.bool).index_fill(0, lowest, True))


def segments_by_static_places(is_static: Tensor) -> Tensor:
    """Cut a video so that as many tokens as possible can be averaged over time (dynamic programming).

    Of all segmentations, one with the largest sum over segments of (places that are static from each of its frames to
    the next) x (frames - 1). Of equally good ones, that whose last segment begins first, and so on backwards. The loop
    is over frames: each sum is built on those of the frames before.

    Args:
        is_static: (T - 1, P) bool, whether a place stays as it is from each frame to the next.

    Returns:
        (T,) int64 segments.
    """
    num_frames = len(is_static) + 1
    best, first_of = [0.0], []
    for last in range(num_frames):
        # Places static from `first` to `last`, for every first = 0 ... last: products from the last frame backwards.
        through = is_static[:last].flip(0).cumprod(dim=0).sum(dim=1).flip(0)
        lengths = torch.arange(last, 0, -1, device=is_static.device)
        gains = torch.cat([through * lengths, through.new_zeros(1)])
        totals = torch.tensor(best, dtype=torch.float64) + gains.double().cpu()
        first = int(totals.argmax())
        best.append(float(totals[first]))
        first_of.append(first)
    starts_segment = torch.zeros(num_frames, dtype=torch.bool)
    last = num_frames - 1
    while last >= 0:
        starts_segment[first_of[last]] = True
        last = first_of[last] - 1
    return segments_from_cuts(starts_segment[1:].to(is_static.device))


def segments_from_cuts(cuts: Tensor) -> Tensor:
    """Return (T,) int64 segments with cuts (T - 1,) bool between frames."""
    return torch.cat([cuts.new_zeros(1, dtype=torch.int64), cuts.cumsum(dim=0)])


def segment_lengths(segments: Tensor) -> Tensor:
    """Return (S,) int64 how many frames each segment has."""
    lengths: Tensor = segments.unique_consecutive(return_counts=True)[1]
    return lengths


def first_frames(segments: Tensor) -> Tensor:
    """Return (T,) int64 the first frame of each frame's segment."""
    lengths = segment_lengths(segments)
    starts = lengths.cumsum(dim=0) - lengths
    return starts[segments]
