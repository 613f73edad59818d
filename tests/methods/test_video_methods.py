"""Methods for videos on cases worked out by hand: P tokens a frame, token p of frame f has number f * P + p."""

import pytest
import torch
from torch import Tensor

from divprune.methods import ItemContext, Merged, get_method
from divprune.methods.dycoke import DyCoke
from divprune.methods.fastvid import FastVID
from divprune.methods.flashvid import FlashVID
from divprune.methods.holitom import HoliTom
from divprune.methods.prunevid import PruneVid
from divprune.methods.vidcom2 import VidCom2
from tests.methods.contexts import VIDEO, full_item


def video(frames: list[list[float]], attention: list[list[float]] | None = None) -> tuple[Tensor, ItemContext]:
    """Tokens (M, 2) float64 at angles in degrees, and their context."""
    turned = torch.tensor(frames, dtype=torch.float64).flatten().deg2rad()
    heard = None if attention is None else torch.tensor(attention).view(1, -1)
    grid = (len(frames), 1, len(frames[0]))
    return torch.stack([turned.cos(), turned.sin()], dim=1), ItemContext("video", grid=grid, vision_attention=heard)


def rows(merged: Merged) -> dict[int, dict[int, float]]:
    """Anchor -> the tokens that are in it, and how much."""
    return {
        anchor: {token: weight for token, weight in enumerate(row) if weight}
        for anchor, row in zip(merged.anchors.tolist(), merged.weights.tolist(), strict=True)
    }


@pytest.mark.parametrize("name", sorted(VIDEO))
def test_images_and_tokens_that_are_not_finite_are_refused(name: str) -> None:
    method, (tokens, context) = get_method(name), full_item((1, 6, 10))
    with pytest.raises(ValueError, match=f"'{name}' compares the frames of a video, got an item of modality 'image'"):
        method.select(tokens, 8, context)
    if name != "evs":
        tokens, context = full_item((4, 3, 5), 0, "video")
        tokens[3, 2] = torch.inf
        with pytest.raises(ValueError, match=f"visual_tokens must be finite for method '{name}'"):
            method.select(tokens, 8, context)


def test_dycoke_keeps_the_first_frame_of_four_and_what_changes_in_the_others() -> None:
    # Frame 1 turns by 10, 50, 30 degrees against frame 0; frame 2 by 20, 0, 5 against frame 0; frame 3 by 0, 0, 90
    # against frame 2. The largest change of each: tokens 4, 6 and 11.
    tokens, context = video([[0, 0, 0], [10, 50, 30], [20, 0, 5], [20, 0, 95]])
    assert DyCoke().select(tokens, 6, context).tolist() == [0, 1, 2, 4, 6, 11]
    assert DyCoke().select(tokens, 5, context).tolist() == [0, 1, 2, 4, 6]
    # The next largest: 30, 5 and 0 degrees, of which the lower place.
    assert DyCoke().select(tokens, 9, context).tolist() == [0, 1, 2, 4, 5, 6, 8, 11, 9]
    # Not a whole frame: places 1 / 4 and 3 / 4 of the way.
    assert DyCoke().select(tokens, 2, context).tolist() == [0, 2]


def test_dycoke_prunes_the_first_frames_of_its_windows_if_they_are_too_many() -> None:
    # Two windows, of frames 0 and 4: six tokens, of which the first frame stays and the other gives one, at 80 degrees.
    tokens, context = video([[0, 0, 0], [90, 90, 90], [90, 90, 90], [90, 90, 90], [10, 80, 20]])
    assert DyCoke().select(tokens, 4, context).tolist() == [0, 1, 2, 13]
    # A frame more than both windows' first ones: frames 1, 2 and 3 give one each.
    assert DyCoke().select(tokens, 9, context).tolist() == [0, 1, 2, 12, 13, 14, 3, 6, 9]


def test_vidcom2_keeps_more_of_a_frame_unlike_the_video_and_of_it_what_is_rare() -> None:
    # The video's sum is (7, 2, 3), of length 7.87: cosines .889, .254 and .381 with the axes. Frames 0 and 1 are at
    # (3 x .889 + .254) / 4 = .730 on average, frame 2 at (.889 + 3 x .381) / 4 = .508. The difference, over .01, makes
    # sigma (0, 0, 1), so that the frames keep 2/3, 2/3 and 5/3 of an equal part. In frames 0 and 1 the sum is
    # (3, 1, 0): cosines .949 and .316, so the second axis, at -.254 - .316, comes before the first, at -.889 - .949.
    # In frame 2 the first axis is the rare one: -.889 - .316 before -.381 - .949.
    axes = torch.eye(3, dtype=torch.float64)
    tokens = axes[[0, 0, 0, 1, 0, 1, 0, 0, 0, 2, 2, 2]]
    context = ItemContext("video", grid=(3, 1, 4))
    # Two a frame on average: 1.33, 1.33 and 3.33, rounded down, and the one that is left goes to frame 2.
    assert VidCom2().select(tokens, 6, context).tolist() == [3, 5, 8, 9, 10, 11]
    # .67, .67 and 1.67: one, and of the two left frame 2 gets one, then the first of the others.
    assert VidCom2().select(tokens, 3, context).tolist() == [3, 8, 9]
    # Three a frame: 2, 2 and all four of frame 2, which has no room for a fifth.
    assert VidCom2().select(tokens, 9, context).tolist() == [3, 0, 1, 5, 4, 8, 9, 10, 11]


def test_vidcom2_deals_equally_to_frames_that_are_alike() -> None:
    # Both frames hold both axes once: sigma is a half for each, and so is every cosine.
    tokens = torch.eye(2, dtype=torch.float64)[[0, 1, 1, 0]]
    context = ItemContext("video", grid=(2, 1, 2))
    assert VidCom2().select(tokens, 2, context).tolist() == [0, 2]


def test_fastvid_keeps_the_attended_and_merges_the_rest_into_a_dense_one() -> None:
    # Three of five: int(1.2) = 1 centre, and the two of the highest attention, 1 and 3. The others are (1, 0), (1, .5)
    # and (1, 2), .5, 1.5 and 2 apart: half the means of squares 1.06, .63, 1.56; the middle one is the densest and
    # 1.5 / sqrt 2 from the farthest. Two join it: w = max(.6, 1 / 3), and .2 of each.
    tokens = torch.tensor([[1, 0], [0, 1], [1, 0.5], [0, 9], [1, 2]], dtype=torch.float64)
    attention = torch.tensor([[0.1, 0.3, 0.1, 0.4, 0.1]])
    context = ItemContext("video", grid=(1, 1, 5), vision_attention=attention)
    assert rows(FastVID().merge(tokens, 3, context)) == {
        1: {1: 1.0},
        2: {0: pytest.approx(0.2), 2: pytest.approx(0.6), 4: pytest.approx(0.2)},
        3: {3: 1.0},
    }


def test_fastvid_has_its_centres_in_every_fourth_frame_from_the_end() -> None:
    # Cuts at the 7 lowest of 12 similarities leave frames 0 to 5 in one segment, and 6, 7, ... 12 alone. Three tokens a
    # frame: 2 by attention and 1 centre. The segment's 6 centres are in frames 5 and 1, the last and four before: three
    # each, and none in 0, 2, 3 and 4.
    turns = [[place + 180 * max(0, frame - 5) for place in (0, 3, 9, 30, 80)] for frame in range(13)]
    tokens, context = video(turns, [[0.3, 0.3, 0.2, 0.1, 0.1]] * 13)
    anchors = FastVID().merge(tokens, 39, context).anchors
    assert (anchors // 5).bincount().tolist() == [2, 5, 2, 2, 2, 5, 3, 3, 3, 3, 3, 3, 3]
    # The tokens of frame 0 that are not attended join the same places of frame 1, the first of the equal ones.
    assert rows(FastVID().merge(tokens, 39, context))[5 + 4] == {
        4: pytest.approx(0.1), 9: pytest.approx(0.6), 14: pytest.approx(0.1),
        19: pytest.approx(0.1), 24: pytest.approx(0.1),
    }  # fmt: skip


STATIC = [[0, 20, 0, 0], [0, 20, 90, 90], [0, 20, 180, 180]]
"""Places 0 and 1 stay, 2 and 3 turn by 90 degrees."""


def test_holitom_averages_what_stays_and_keeps_what_is_attended_of_the_rest() -> None:
    # One segment: two places are static through three frames, 2 x 2 = 4. Two static tokens and two of each frame are
    # left, half of which stay. The static ones are equally dense, so the first is the centre: .6 of its mean over
    # time and .4 of the other's.
    tokens, context = video(STATIC, [[0.4, 0.4, 0.1, 0.2], [0.4, 0.4, 0.2, 0.1], [0.4, 0.4, 0.1, 0.2]])
    found = rows(HoliTom().merge(tokens, 4, context))
    assert found == {
        0: {0: pytest.approx(0.2), 4: pytest.approx(0.2), 8: pytest.approx(0.2)}
        | {1: pytest.approx(0.4 / 3), 5: pytest.approx(0.4 / 3), 9: pytest.approx(0.4 / 3)},
        3: {3: 1.0},
        6: {6: 1.0},
        11: {11: 1.0},
    }


def test_prunevid_averages_what_stays_and_clusters_everything() -> None:
    # int(.25 x 3) = 0 clusters of frames, so one. Halved as above, but the two tokens of each set become their mean.
    tokens, context = video(STATIC)
    sixth = pytest.approx(1 / 6)
    assert rows(PruneVid().merge(tokens, 4, context)) == {
        0: {0: sixth, 1: sixth, 4: sixth, 5: sixth, 8: sixth, 9: sixth},
        2: {2: 0.5, 3: 0.5},
        6: {6: 0.5, 7: 0.5},
        10: {10: 0.5, 11: 0.5},
    }


def test_prunevids_segments_are_runs_of_frames_of_one_cluster() -> None:
    # Two clusters of eight frames, in three runs: 0-2, 3-5 and 6-7. One token a frame, static in each run.
    tokens = torch.eye(2, dtype=torch.float64)[[0, 0, 0, 1, 1, 1, 0, 0]]
    context = ItemContext("video", grid=(8, 1, 1))
    third = pytest.approx(1 / 3)
    assert rows(PruneVid().merge(tokens, 3, context)) == {
        0: {0: third, 1: third, 2: third},
        3: {3: third, 4: third, 5: third},
        6: {6: 0.5, 7: 0.5},
    }
    # Five are to stay: only the first run is averaged, and six are left, the last of which is dropped.
    assert rows(PruneVid().merge(tokens, 5, context)) == {
        0: {0: third, 1: third, 2: third}, 3: {3: 1.0}, 4: {4: 1.0}, 5: {5: 1.0}, 6: {6: 1.0}
    }  # fmt: skip


def test_flashvid_weighs_a_candidates_distance_by_its_attention() -> None:
    # Distances 1 - cosine at 0, 10, 90 and 180 degrees: .0152 between the first two, .8264 from 10 to 90, 1.9848 from
    # 10 to 180, 1 and 2 otherwise. To the nearest other one, times attention: .0015, .0061, .2479, .2: 90 is first.
    # Then .1, .3306, -, .2: 10. Then .0015, -, -, .2: 180.
    tokens, context = video([[0, 10, 90, 180]], [[0.1, 0.4, 0.3, 0.2]])
    kept = {count: FlashVID(chosen_ratio=1.0).select(tokens, count, context).tolist() for count in (1, 2, 3)}
    assert kept == {1: [2], 2: [1, 2], 3: [1, 2, 3]}
    # ceil(2.8) = 3 of four are chosen, and the one that is left is its own cluster.
    assert FlashVID().select(tokens, 4, context).tolist() == [0, 1, 2, 3]


def test_flashvid_links_tokens_through_time() -> None:
    # Seven cuts leave frames 3 and 4 together. 42 degrees is most like 40, 5 like 0: cosines .9994 and .9962.
    far, near = [180.0, 210.0], [0.0, 30.0]
    turns = [far, near, far, [0.0, 40.0], [42.0, 5.0], far, near, far, near]
    tokens, context = video(turns, [[0.5, 0.5]] * 9)
    method = FlashVID(chosen_ratio=0.0)
    everything = {token: {token: 1.0} for token in range(18)}
    # One must go: only the closest two are linked.
    one = {token: row for token, row in everything.items() if token != 8} | {7: {7: 0.5, 8: 0.5}}
    assert rows(method.merge(tokens, 17, context)) == one
    two = {token: row for token, row in one.items() if token != 9} | {6: {6: 0.5, 9: 0.5}}
    assert rows(method.merge(tokens, 16, context)) == two
    # No link below the threshold: with fewer tokens than trees, the tokens of a frame are clustered. Fifteen among
    # seven frames with two and two with one or two left: 18 x 15 / 18 each, rounded down 1, and the first six get one.
    strict = FlashVID(chosen_ratio=0.0, threshold=1.0)
    merged = strict.merge(tokens, 15, context)
    assert (merged.anchors // 2).bincount().tolist() == [2] * 6 + [1] * 3
    assert rows(merged)[12] == {12: 0.5, 13: 0.5}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fastvid:dense_ratio=2", "dense_ratio must be between 0 and 1, got 2"),
        ("holitom:threshold=2", "threshold must be between -1 and 1, got 2"),
        ("prunevid:threshold=nan", "threshold must be between -1 and 1, got nan"),
        ("prunevid:segment_ratio=-1", "segment_ratio must be between 0 and 1, got -1"),
        ("flashvid:chosen_ratio=1.5", "chosen_ratio must be between 0 and 1, got 1.5"),
        ("vidcom2:temperature=0", "temperature must be at least 1e-06, got 0"),
        ("flashvid:threshold=-2", "threshold must be between -1 and 1, got -2"),
    ],
)
def test_parameters_out_of_range_are_refused(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_method(spec)
