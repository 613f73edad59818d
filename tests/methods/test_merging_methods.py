"""Merging methods on cases worked out by hand."""

import dataclasses

import pytest
import torch
from torch import Tensor

from divprune.methods import ItemContext, get_method
from divprune.methods.grids import pooled
from divprune.methods.item_context import Piece
from divprune.methods.m3_pooling import M3Pooling
from divprune.methods.merging import Merged
from divprune.methods.prumerge import PruMerge, PruMergePlus, num_outliers
from divprune.methods.spatial_pooling import SpatialPooling, pooled_shape
from divprune.methods.tome import ToMe
from divprune.methods.visionzip import VisionZip

ZEROS = torch.zeros(6, 2)


def attended(values: list[float], keys: list[list[float]]) -> ItemContext:
    return ItemContext(
        vision_attention=torch.tensor([values]), vision_keys=torch.tensor([keys]), patch_features=torch.zeros(6, 2)
    )


def angles(*degrees: float) -> list[list[float]]:
    turned = torch.tensor(degrees).deg2rad()
    return torch.stack([turned.cos(), turned.sin()], dim=1).tolist()


def test_merged_tokens_are_weighted_sums_in_the_dtype_of_the_tokens() -> None:
    merged = Merged(torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 2.0]]), torch.tensor([0, 2]))
    values = torch.tensor([[1.0], [3.0], [5.0]])
    assert merged.tokens(values).tolist() == [[2.0], [10.0]]
    assert merged.tokens(values.bfloat16()).dtype == torch.bfloat16


def test_pooling_averages_cells_and_stands_in_their_middle() -> None:
    merged = pooled((1, 4, 4), (1, 2, 2))
    values = torch.arange(16.0)[:, None]
    assert merged.tokens(values).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert merged.anchors.tolist() == [5, 7, 13, 15]
    thirds = pooled((1, 1, 5), (1, 1, 3))  # cells 0-1, 1-3, 3-4
    assert thirds.tokens(torch.arange(5.0)[:, None]).flatten().tolist() == pytest.approx([0.5, 2.0, 3.5])


@pytest.mark.parametrize(
    ("grid", "most", "shape"),
    [
        ((1, 24, 24), 576, (1, 24, 24)),
        ((1, 24, 24), 144, (1, 12, 12)),
        ((1, 24, 24), 56, (1, 7, 8)),
        ((1, 24, 24), 1, (1, 1, 1)),
        ((1, 12, 24), 50, (1, 5, 10)),
        ((4, 6, 6), 36, (4, 3, 3)),
        ((4, 6, 6), 2, (2, 1, 1)),
        ((1, 1, 9), 4, (1, 1, 4)),
    ],
)
def test_pooling_fills_the_count_in_the_shape_of_the_grid(
    grid: tuple[int, int, int], most: int, shape: tuple[int, int, int]
) -> None:
    assert pooled_shape(grid, most) == shape
    total = grid[0] * grid[1] * grid[2]
    merged = SpatialPooling().merge(torch.zeros(total, 1), most, ItemContext(grid=grid))
    assert len(merged.anchors) == shape[0] * shape[1] * shape[2]


def test_m3_halves_the_grid_as_often_as_needed() -> None:
    tokens, grid = torch.arange(576.0)[:, None], ItemContext(grid=(1, 24, 24), pieces=(Piece(0, 24, 24, 24),))
    lengths = {count: len(M3Pooling().select(tokens, count, grid)) for count in (576, 575, 144, 100, 36, 9, 8, 1)}
    assert lengths == {576: 576, 575: 144, 144: 144, 100: 36, 36: 36, 9: 9, 8: 1, 1: 1}
    first = M3Pooling().merge(tokens, 36, grid).tokens(tokens)[0]
    assert float(first) == pytest.approx(sum(row * 24 + column for row in range(4) for column in range(4)) / 16)
    four = ItemContext(pieces=tuple(Piece(4 * frame, 2, 2, 2) for frame in range(4)))
    with pytest.raises(ValueError, match="num_keep must be at least the number of frames or tiles, 4, for 'm3', got 3"):
        M3Pooling().merge(torch.zeros(16, 1), 3, four)


def test_pooling_shares_the_count_among_tiles_and_drops_row_breaks() -> None:
    pieces = (Piece(0, 2, 2, 2), Piece(4, 2, 4, 5))  # 4 tokens, then two rows of 4 and a break
    tokens = torch.arange(14.0)[:, None]
    merged = SpatialPooling().merge(tokens, 5, ItemContext(pieces=pieces))
    # One each, and of the other three 3 * 4 // 12 and 3 * 8 // 12 more: two cells and three, of which 1 x 3 fit.
    assert [int((row > 0).sum()) for row in merged.weights] == [2, 2, 4, 4, 4]
    assert merged.tokens(tokens).flatten().tolist() == pytest.approx([1.0, 2.0, 7.0, 8.0, 9.0])
    assert merged.weights[:, [8, 13]].abs().max() == 0
    one = SpatialPooling().merge(tokens, 1, ItemContext(pieces=pieces))
    assert one.tokens(tokens).flatten().tolist() == [1.5]


def test_outliers_lie_above_the_third_quartile_by_one_and_a_half_ranges() -> None:
    assert num_outliers(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 8.1])) == 1  # Q1 2.25, Q3 4.75, limit 8.5
    assert num_outliers(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 8.6])) == 1
    assert num_outliers(torch.tensor([0.0] * 6 + [1.0, 1.0])) == 2
    assert num_outliers(torch.ones(4)) == 1


def test_prumerge_adds_the_others_by_attention_and_the_dropped_as_one_more() -> None:
    context = attended([0.1, 0.3, 0.05, 0.2, 0.15, 0.05], angles(0, 10, 20, 90, 100, 110))
    merged = PruMerge().merge(ZEROS, 3, context)
    assert merged.anchors.tolist() == [1, 3, 4]  # 1 and 3 are kept; 4 is the most attended of the dropped
    # With fewer than 33 tokens every other one is a neighbour.
    assert merged.weights[0].tolist() == pytest.approx([0.1, 1.0, 0.05, 0.2, 0.15, 0.05])
    assert merged.weights[1].tolist() == pytest.approx([0.1, 0.3, 0.05, 1.0, 0.15, 0.05])
    assert merged.weights[2].tolist() == pytest.approx([0.1, 0.0, 0.05, 0.0, 0.15, 0.05])


def test_prumerge_looks_at_the_nearest_keys_only() -> None:
    total = 60
    keys = torch.tensor(angles(*range(total)))[None]
    attention = torch.full((1, total), 0.01)
    attention[0, 0] = 0.5
    context = ItemContext(vision_attention=attention, vision_keys=keys, patch_features=torch.zeros(total, 2))
    weights = PruMerge().merge(torch.zeros(total, 2), 2, context).weights
    assert weights[0].nonzero().flatten().tolist() == list(range(33))


def prumerge_count(attention: list[float]) -> tuple[int, int]:
    context = ItemContext(vision_attention=torch.tensor([attention]))
    tokens = torch.zeros(len(attention), 1)
    return PruMerge().adaptive_count(tokens, context), PruMergePlus().adaptive_count(tokens, context)


def test_prumerge_counts_by_itself() -> None:
    attention = [0.0] * 48
    assert prumerge_count([*attention[:-2], 1.0, 1.0]) == (3, 2 + 6 + 1)  # every 24 // 3 = 8th place: 0, 8, ..., 40
    assert prumerge_count([1.0, *attention[1:]]) == (2, 3 + 1)  # every 16th: 0, 16, 32; 0 is attended


def test_prumerge_plus_keeps_everything_where_more_than_a_sixth_is_attended() -> None:
    # 8 of 48 are a sixth: int(int(6) / 3) = 2, every second place of 0 to 46, 24 in all, of which 40, 42, 44, 46 are
    # among the attended 40 to 47: 24 + 4, and the extra one.
    assert prumerge_count([0.0] * 40 + [1.0] * 8) == (9, 29)
    # 9 of 48: int(int(5.3) / 3) = 1, every place of 0 to 46, and 47 is attended or the extra one.
    assert prumerge_count([0.0] * 39 + [1.0] * 9) == (10, 48)
    assert prumerge_count([1.0] * 9 + [0.0] * 39) == (10, 48)


def test_prumerge_plus_spreads_three_quarters_of_a_given_count() -> None:
    attention = torch.arange(20.0)
    kept = PruMergePlus().highest(attention, 8)
    assert kept.tolist() == [19, 18, 1, 4, 7, 10, 13, 16]


def test_visionzip_keeps_the_dominant_and_merges_the_rest_by_key() -> None:
    context = attended([0.1, 0.3, 0.05, 0.2, 0.15, 0.05], angles(0, 50, 10, 50, 90, 80))
    merged = VisionZip(contextual_share=0.5).merge(ZEROS, 4, context)
    # 1 and 3 are dominant; of 0, 2, 4, 5 the targets are 0 and 4; 2 is like 0, 5 is like 4.
    assert merged.anchors.tolist() == [0, 1, 3, 4]
    assert merged.weights.tolist() == [[1, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 1]]
    mean = VisionZip(contextual_share=0.25).merge(ZEROS, 4, context)
    assert mean.anchors.tolist() == [0, 1, 3, 4]  # 0 alone is a target, of 2 and 5
    assert mean.weights[0].tolist() == [1, 0, 0.5, 0, 0, 0.5]


def test_visionzip_hands_the_cls_token_to_the_language_model() -> None:
    features = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0], [5.0, 0.0], [6.0, 0.0]])
    context = dataclasses.replace(
        attended([0.1, 0.3, 0.05, 0.2, 0.15, 0.05], angles(0, 50, 10, 50, 90, 80)),
        patch_features=features,
        cls_features=torch.tensor([[0.0, 9.0]]).expand(6, -1),
        project=lambda values: values,
    )
    # Of 4, two are dominant: the CLS token and 1. Of 0, 2, 3, 4, 5 the targets are 0 and 3; 2 (10 degrees) is like 0,
    # and 4 (90) and 5 (80) are like 3 (50): 4 + (5 + 6) / 2. The CLS token is the first, 0 and 1 move to 1 and 2.
    merged = VisionZip(contextual_share=0.5).merge(ZEROS, 4, context)
    assert merged.anchors.tolist() == [0, 1, 2, 3]
    assert merged.tokens(features, context.cls_features).tolist() == [[0, 9], [1 + 3, 0], [2, 0], [4 + 5.5, 0]]
    # Without contextual tokens 1 and 3 are dominant beside it, and 0 is free.
    merged = VisionZip(contextual_share=0.0).merge(ZEROS, 3, context)
    assert merged.anchors.tolist() == [0, 1, 3]
    assert merged.tokens(features, context.cls_features).tolist() == [[0, 9], [2, 0], [4, 0]]
    # There is no CLS token for a projector of several patches, if it is not wanted, and where everything is kept.
    for method, num_keep, known in (
        (VisionZip(contextual_share=0.5), 4, dataclasses.replace(context, project=None)),
        (VisionZip(contextual_share=0.5, keeps_cls_token=False), 4, context),
    ):
        merged = method.merge(ZEROS, num_keep, known)
        assert (merged.anchors.tolist(), merged.cls_weights) == ([0, 1, 3, 4], None)
    assert VisionZip().merge(ZEROS, 6, context).tokens(features).equal(features)


@pytest.mark.parametrize(("kept", "contextual"), [(64, 10), (128, 20), (192, 30)])
def test_visionzip_has_the_papers_shares(kept: int, contextual: int) -> None:
    assert round(VisionZip().contextual_share * kept) == contextual


def test_tome_merges_the_most_similar_pair_first() -> None:
    context = ItemContext(vision_keys=torch.tensor([angles(0, 40, 90, 92, 180, 200)]))
    one = ToMe().merge(ZEROS, 5, context)
    assert one.anchors.tolist() == [0, 1, 3, 4, 5]  # 2 (90 degrees) goes to 3 (92)
    assert one.weights[2].tolist() == [0, 0, 0.5, 0.5, 0, 0]
    half = ToMe().merge(ZEROS, 3, context)
    assert half.anchors.tolist() == [1, 3, 5]
    # Next round: groups at 20, 91 and 190 degrees, of which 20 and 190 are at even places and 91 at the odd one.
    two = ToMe().merge(ZEROS, 2, context)
    assert two.anchors.tolist() == [3, 5]
    assert two.weights[0].tolist() == [0.25, 0.25, 0.25, 0.25, 0, 0]


def test_tome_weighs_groups_by_their_sizes() -> None:
    keys: Tensor = torch.tensor([angles(0, 1, 2, 3, 4, 5)])
    weights = ToMe().merge(ZEROS, 1, ItemContext(vision_keys=keys)).weights
    assert weights[0].tolist() == pytest.approx([1 / 6] * 6)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_shares_out_of_range_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match=f"contextual_share must be between 0 and 1, got {share}"):
        get_method(f"visionzip:contextual_share={share}")
