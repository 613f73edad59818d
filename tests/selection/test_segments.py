"""Segmentation of videos and static places, worked out by hand and against slow references."""

from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from divprune.selection.segments import (
    first_frames,
    segment_lengths,
    segments_by_static_places,
    segments_by_threshold,
)
from divprune.selection.static_places import lowest_in_segments, static_anchors, static_tokens


def test_cuts_lie_below_the_threshold_and_at_the_lowest() -> None:
    similarity = torch.tensor([0.95, 0.5, 0.92, 0.89, 0.92])
    assert segments_by_threshold(similarity, 0.9).tolist() == [0, 0, 1, 1, 2, 2]
    # A third cut at the first of the two that are 0.92, then at the second.
    assert segments_by_threshold(similarity, 0.9, 4).tolist() == [0, 0, 1, 2, 3, 3]
    assert segments_by_threshold(similarity, 0.9, 5).tolist() == [0, 0, 1, 2, 3, 4]
    assert segments_by_threshold(similarity, 0.9, 99).tolist() == [0, 1, 2, 3, 4, 5]
    assert segments_by_threshold(similarity, 0.1).tolist() == [0] * 6
    assert segments_by_threshold(similarity[:0], 0.9, 8).tolist() == [0]


def test_segments_keep_most_static_places() -> None:
    # Place 0 stays through all four frames, places 1 and 2 through the last two. One segment: 1 x 3 = 3. Cut before the
    # last two: 1 x 1 + 3 x 1 = 4. Cut after the first: 0 + 1 x 2 = 2.
    is_static = torch.tensor([[1, 0, 0], [1, 0, 0], [1, 1, 1]]).bool()
    assert segments_by_static_places(is_static).tolist() == [0, 0, 1, 1]
    # Two places through the first three frames, 2 x 2 = 4; nothing then: the last frame is alone.
    is_static = torch.tensor([[1, 1], [1, 1], [0, 0]]).bool()
    assert segments_by_static_places(is_static).tolist() == [0, 0, 0, 1]
    assert segments_by_static_places(is_static[:0]).tolist() == [0]


def gain_of(is_static: Tensor, starts: list[int]) -> int:
    """What a segmentation saves: places static through each segment, times its frames but one."""
    bounds = [*starts, len(is_static) + 1]
    return sum(
        (end - start - 1) * sum(all(is_static[frame, place] for frame in range(start, end - 1)) for place in range(4))
        for start, end in pairwise(bounds)
        if end - start > 1
    )


@pytest.mark.parametrize("seed", range(6))
def test_no_segmentation_is_better(seed: int) -> None:
    """All 64 segmentations of seven frames, one by one."""
    is_static = torch.rand(6, 4, generator=torch.Generator().manual_seed(seed)) < 0.7
    segments = segments_by_static_places(is_static).tolist()
    found = [frame for frame in range(7) if frame == 0 or segments[frame] != segments[frame - 1]]
    everything = [[0, *(frame for frame, cut in enumerate(cuts, start=1) if cut)] for cuts in product([0, 1], repeat=6)]
    assert gain_of(is_static, found) == max(gain_of(is_static, starts) for starts in everything)


def test_segments_know_their_frames() -> None:
    segments = torch.tensor([0, 0, 1, 2, 2, 2])
    assert segment_lengths(segments).tolist() == [2, 1, 3]
    assert first_frames(segments).tolist() == [0, 0, 2, 3, 3, 3]


def test_static_places_are_close_through_the_segment() -> None:
    segments = torch.tensor([0, 0, 0, 1, 2, 2])
    similarity = torch.tensor([[0.9, 0.85], [0.95, 0.2], [0.99, 0.99], [0.99, 0.99], [0.7, 0.9]])
    closeness = lowest_in_segments(similarity, segments)
    assert closeness.tolist() == [pytest.approx([0.9, 0.2]), [torch.inf] * 2, pytest.approx([0.7, 0.9])]
    # Place 0 of the first segment saves two tokens of twelve, place 1 of the last saves one.
    is_static = static_tokens(closeness, 0.8, segments, 9)
    assert is_static.int().tolist() == [[1, 0], [1, 0], [1, 0], [0, 0], [0, 1], [0, 1]]
    assert static_anchors(is_static, segments).tolist() == [0, 1, 0, 3, 0, 5, 6, 7, 8, 9, 10, 9]
    # Both are equally close, and the first goes first: it leaves ten tokens, so that there is none if eleven are to be
    # left.
    closeness = torch.tensor([[0.9, 0.2], [torch.inf] * 2, [0.7, 0.9]])
    assert static_tokens(closeness, 0.8, segments, 10).int().tolist() == [[1, 0]] * 3 + [[0, 0]] * 3
    assert not bool(static_tokens(closeness, 0.8, segments, 11).any())
