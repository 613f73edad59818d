"""Methods of 2024 to 2026 that rank an image's tokens by the vision encoder, on cases worked out by hand."""

import pytest
import torch

from divprune.methods import ItemContext, get_method
from divprune.methods.cls_attention import CLSAttention
from divprune.methods.globalcom2 import GlobalCom2
from divprune.methods.hiprune import HiPrune
from divprune.methods.holov import HoloV
from divprune.methods.item_context import Piece
from divprune.methods.vscan import VScan
from tests.methods.test_video_methods import rows


def test_cls_attention_keeps_the_most_attended_on_average_over_heads() -> None:
    # Means .2, .25, .1, .25, .2.
    context = ItemContext(vision_attention=torch.tensor([[0.1, 0.4, 0.1, 0.3, 0.1], [0.3, 0.1, 0.1, 0.2, 0.3]]))
    assert CLSAttention().select(torch.zeros(5, 2), 4, context).tolist() == [1, 3, 0, 4]


def test_holov_shares_by_attention_and_variance() -> None:
    # 18 tokens in 16 runs: 0-1, 2-3, then one each. All similarities are 1 but in the first run, where tokens are
    # at right angles: rows (1, 0) and (0, 1), variance 1 / 4, so mean v = 2 x .25 / 18 = 1 / 36.
    tokens = torch.ones(18, 2, dtype=torch.float64) * torch.tensor([1.0, 0.0])
    tokens[1] = torch.tensor([0.0, 1.0])
    attention = torch.full((1, 18), 0.05)
    attention[0, 1] += 0.01
    attention[0, 3] += 0.01
    attention[0, 17] = 0.08
    # Mean 1000 a, of 15 tokens with 50, two with 60 and one with 80: 950 / 18 = 52.8. The first run's scores are 50 and
    # 60, each + .09 x .25 x 52.8 x 36 = 42.75, on average 97.75; the second run's are 55; then thirteen of 50, and 80:
    # together 882.75. Of 8: .886, .498, .453 ..., .725, rounded down 0; one each to the largest: the first, the last,
    # the second, and five of the equal ones.
    context = ItemContext(vision_attention=attention)
    assert HoloV().select(tokens, 8, context).tolist() == [1, 3, 4, 5, 6, 7, 8, 17]
    # Of 17: 1.88, 1.06, .96 ..., 1.54: 1, 1, 0 ..., 1; fourteen remain. The first run, of two tokens, gets one more;
    # the last has no other token; the second and twelve of the thirteen get one.
    assert HoloV().select(tokens, 17, context).tolist() == [1, 0, 3, 2, *range(4, 16), 17]


def test_holov_without_variance_goes_by_attention() -> None:
    context = ItemContext(vision_attention=torch.tensor([[0.1, 0.5, 0.4]]))
    assert HoloV().select(torch.ones(3, 2), 2, context).tolist() == [1, 2]


def test_hiprune_keeps_anchors_with_their_neighbours_and_the_rest_by_the_last_layer() -> None:
    # round(.5 x 10 / 5) = 1 anchor on a grid of 3 x 4: token 5, with 1, 9, 4 and 6; then 11, 10, 8, 7, 3 by the last.
    early = torch.zeros(1, 12)
    early[0, 5] = 1
    context = ItemContext(
        pieces=(Piece(0, 3, 4, 4),), early_vision_attention=early, vision_attention=torch.arange(12.0)[None]
    )
    method = HiPrune(alpha=0.5)
    assert method.select(torch.zeros(12, 1), 10, context).tolist() == [5, 1, 9, 4, 6, 11, 10, 8, 7, 3]
    # round(.5 x 3 / 5) = 0 anchors.
    assert method.select(torch.zeros(12, 1), 3, context).tolist() == [11, 10, 9]
    # round(3 / 5) = 1 anchor and its four neighbours are more than three.
    assert HiPrune(alpha=1.0).select(torch.zeros(12, 1), 3, context).tolist() == [5, 1, 9]


def test_hiprunes_neighbours_lie_in_the_same_tile() -> None:
    # Two tiles of 1 x 3: token 2 ends its tile, and has one neighbour.
    early = torch.zeros(1, 7)
    early[0, 2] = 1
    context = ItemContext(
        pieces=(Piece(0, 1, 3, 3), Piece(3, 1, 3, 4)), early_vision_attention=early,
        vision_attention=torch.tensor([[0.3, 0.0, 0.0, 0.1, 0.0, 0.2, 0.0]]),
    )  # fmt: skip
    assert HiPrune(alpha=1.0).select(torch.zeros(7, 1), 5, context).tolist() == [2, 1, 0, 5, 3]


def test_vscan_keeps_the_early_ones_of_each_window_and_merges_the_rest() -> None:
    # 1 x 12 tokens are two windows of six. Half of four: one each by the early layer, 2 and 7 (not 1, which is second).
    # Then two by the late one among the rest: 11 and 0, as 2 is taken.
    early, late = torch.zeros(1, 12), torch.zeros(1, 12)
    early[0, [2, 1, 7]] = torch.tensor([0.9, 0.8, 0.1])
    late[0, [2, 11, 0]] = torch.tensor([0.9, 0.8, 0.7])
    # By direction 1 is nearest to 0; 3, 4 and 5, at 120 degrees, to 2; 6, 8 and 9 to 7; 10 to 11.
    turned = torch.tensor([0, 20, 60, 70, 80, 120, 190, 200, 210, 230, 290, 300], dtype=torch.float64).deg2rad()
    tokens = torch.stack([turned.cos(), turned.sin()], dim=1)
    context = ItemContext(pieces=(Piece(0, 1, 12, 12),), early_vision_attention=early, vision_attention=late)
    assert rows(VScan().merge(tokens, 4, context)) == {
        0: {0: 0.5, 1: 0.5},
        2: {2: 0.25, 3: 0.25, 4: 0.25, 5: 0.25},
        7: {6: 0.25, 7: 0.25, 8: 0.25, 9: 0.25},
        11: {10: 0.5, 11: 0.5},
    }


def test_globalcom2_gives_a_tile_more_if_the_thumbnail_looks_at_it() -> None:
    # A thumbnail of 2 x 2, tokens 0-3, and two tiles of 2 x 2 side by side, of which 4, 5, 8 and 9 are the left one.
    # The thumbnail looks at the right: s = 0 and 1, at temperature .5 softmax(0, 2) = .1192 and .8808. Fractions r (1 +
    # p - .5): .6192 r and 1.3808 r. Of six: weights 4, 2.477 and 5.523 of 12: 2, 1.238, 2.762, rounded down 2, 1, 2;
    # one remains, for the largest.
    pieces = (Piece(0, 2, 2, 2), Piece(4, 2, 4, 4))
    attention = torch.tensor([[0.0, 0.6, 0.0, 0.4, *(0.1, 0.3, 0.2, 0.4), *(0.2, 0.1, 0.3, 0.1)]])
    context = ItemContext(vision_attention=attention, pieces=pieces)
    picks = GlobalCom2(temperature=0.5).select(torch.zeros(12, 1), 6, context).tolist()
    assert picks == [1, 3, 5, 7, 10, 6]
    # At a high temperature all tiles are alike: two each.
    assert GlobalCom2(temperature=1e9).select(torch.zeros(12, 1), 6, context).tolist() == [1, 3, 5, 8, 7, 10]


def test_globalcom2_knows_tiles_whose_padding_is_cut_off() -> None:
    # Two tiles of 4 x 4 above each other; of eight rows the image has the six in the middle, three in each tile. The
    # thumbnail looks at its lower half alone: fractions r, .5 r and 1.5 r of 16, 12 and 12 tokens. Of ten: 4, 1.5, 4.5,
    # rounded down 4, 1, 4; one remains, for the largest.
    attention = torch.arange(40.0)[None]
    attention[0, :16] = torch.tensor([0.0] * 8 + [1 / 8] * 8)
    context = ItemContext(vision_attention=attention, pieces=(Piece(0, 4, 4, 4), Piece(16, 6, 4, 4)))
    picks = GlobalCom2(temperature=1e-6).select(torch.zeros(40, 1), 10, context)
    assert picks.tolist() == [8, 9, 10, 11, 27, 39, 38, 37, 36, 35]


def test_globalcom2_refuses_other_grids() -> None:
    context = ItemContext(vision_attention=torch.ones(1, 12), pieces=tuple(Piece(4 * n, 2, 2, 2) for n in range(3)))
    with pytest.raises(ValueError, match=r"needs a square thumbnail and one grid of tiles.*got 3 grids"):
        GlobalCom2().select(torch.zeros(12, 1), 6, context)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hiprune:alpha=2", "alpha must be between 0 and 1, got 2"),
        ("hiprune:early_layer=-1", "early_layer must be at least 0, got -1"),
        ("vscan:early_layer=-1", "early_layer must be at least 0, got -1"),
        ("globalcom2:temperature=0", "temperature must be at least 1e-06, got 0"),
    ],
)
def test_parameters_out_of_range_are_refused(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_method(spec)
