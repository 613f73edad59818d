"""Selecting methods that act before the LLM, on cases worked out by hand or written out naively."""

from math import exp

import pytest
import torch
from torch import Tensor

from divprune.methods import CDPruner, ItemContext, get_method
from divprune.methods.agile_pruner import AgilePruner, effective_rank
from divprune.methods.divprune_star import DivPruneStar
from divprune.methods.eadp import EADP, grids_of, smoothed
from divprune.methods.evs import EVS
from divprune.methods.item_context import Piece
from divprune.methods.min_max import MinMax
from divprune.methods.mmtok import MMTok
from divprune.methods.scores import text_similarity
from divprune.methods.token_norm import TokenNorm
from divprune.methods.vispruner import VisPruner
from divprune.selection.reference import reference_select
from tests.methods.contexts import full_item, noise

IMAGE = ItemContext()


def angles(*degrees: float) -> Tensor:
    turned = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([turned.cos(), turned.sin()], dim=1)


def cosines(rows: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(rows[:, None].double(), rows[None].double(), dim=-1)


def test_token_norm_keeps_the_longest() -> None:
    tokens = torch.tensor([[3.0, 4.0], [0.0, 6.0], [5.0, 0.0], [1.0, 0.0]])
    assert TokenNorm().select(tokens, 3, IMAGE).tolist() == [1, 0, 2]


def test_min_max_starts_at_the_closest_pair_and_stays_near() -> None:
    assert MinMax().select(angles(0, 60, 100, 103, 130, 180), 4, IMAGE).tolist() == [2, 3, 4, 1]


def test_divprune_star_is_divprune_at_prumerges_count() -> None:
    attention = torch.zeros(1, 40)
    attention[0, [3, 9, 11]] = 1.0
    tokens, context = noise(40, 6, seed=0), ItemContext(vision_attention=attention)
    assert DivPruneStar().adaptive_count(torch.zeros(40, 1), context) == 4
    assert DivPruneStar().select(tokens, 4, context).tolist() == reference_select(tokens, 4).tolist()


def test_vispruner_weeds_out_duplicates_of_the_unattended() -> None:
    features = angles(0, 100, 200, 201, 300, 60, 99, 240)
    attention = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.9, 0.0, 0.0, 0.8]])
    context = ItemContext(vision_attention=attention, patch_features=features.float())
    # 4 and 7 are attended; left are 0 1 2 3 5 6. Those at even places, 0 (0 degrees), 2 (200) and 5 (60), are 99, 1 and
    # 39 degrees from the nearest at an odd place (100, 201, 99): 2 is the first to go, then 5.
    assert VisPruner(important_ratio=0.3).select(features, 7, context).tolist() == [4, 7, 5, 0, 1, 3, 6]
    assert VisPruner(important_ratio=0.4).select(features, 6, context).tolist() == [4, 7, 0, 1, 3, 6]
    # Eight at once take all the even ones; then of 1 3 6, with 3 at the odd place, 1 is nearer to it than 6.
    assert VisPruner().select(features, 4, context).tolist() == [4, 7, 6, 3]
    assert VisPruner(important_ratio=1.0).select(features, 2, context).tolist() == [4, 7]


def test_vispruner_lists_the_rest_by_attention_and_goes_on_with_the_most_similar() -> None:
    # Attention rises with the index, so that token 19 - p stands at place p of the list. At odd places 1, 3, ..., 19:
    # e0, ..., e9. At even places 0, 2, ..., 14: e0, ..., e7 again; at 16: .6 e8 + .8 e10; at 18: .8 e9 + .6 e11.
    rows = torch.zeros(20, 12, dtype=torch.float64)
    odd = torch.arange(10)
    rows[2 * odd + 1, odd] = 1.0
    rows[2 * odd[:8], odd[:8]] = 1.0
    rows[16, [8, 10]], rows[18, [9, 11]] = torch.tensor([[0.6, 0.8], [0.8, 0.6]], dtype=torch.float64)
    context = ItemContext(vision_attention=torch.arange(20.0)[None], patch_features=rows.flip(0))
    # Eight go, the copies at places 0 to 14. The next list: place 18 (similarity .8), 16 (.6), then 1, 3, ..., 19. Now
    # 18, 1, 5, 9, 13, 17 are at even places; 18 is .8 like 19, and 17 is .6 like 16: one more goes, 18. If 16 were
    # before 18, nobody at an even place would be like anybody at an odd one, and 16 would go.
    kept = VisPruner(important_ratio=0.0).select(rows, 11, context)
    assert sorted(19 - kept) == [1, 3, 5, 7, 9, 11, 13, 15, 16, 17, 19]


def test_scope_multiplies_saliency_and_coverage() -> None:
    features = angles(0, 5, 90, 95, 45)
    attention = torch.tensor([[0.1, 0.3, 0.25, 0.1, 0.25]])
    context = ItemContext(vision_attention=attention, patch_features=features.float())
    near = cosines(features)
    chosen: list[int] = []
    while len(chosen) < 5:
        best = near[:, chosen].amax(dim=1).clamp(min=0) if chosen else torch.zeros(5)
        gain = {u: float(attention[0, u]) * float((near[:, u] - best).clamp(min=0).sum()) for u in range(5)}
        chosen.append(max((u for u in range(5) if u not in chosen), key=gain.__getitem__))
    assert get_method("scope").select(features, 5, context).tolist() == chosen
    saliency_off = get_method("scope:alpha=0").select(features, 1, context)
    assert saliency_off.tolist() == [4]  # covers the most


def test_mmr_balances_importance_and_redundancy() -> None:
    context = ItemContext(vision_attention=torch.tensor([[0.9, 0.8, 0.1, 0.55]]))
    tokens = angles(0, 0, 90, 60)
    assert get_method("mmr:weight=1").select(tokens, 4, context).tolist() == [0, 1, 3, 2]
    # After 0, doubled: 1 has .875 - 1, 2 has 0 - 0, 3 has .5625 - .5. After 3: 1 has -.125, 2 has 0 - .866.
    assert get_method("mmr").select(tokens, 4, context).tolist() == [0, 3, 1, 2]


def test_id_selection_suppresses_neighbours() -> None:
    context = ItemContext(vision_attention=torch.tensor([[1.0, 0.9, 0.3, 0.2]]))
    tokens = angles(0, 10, 90, 180)
    # Scaled: 1, .875, .125, 0. d(0, 1) = .0152 gives exp(-20 d^2) = .9954: after 0, .875 - .9954 is 0 at least; 90 and
    # 180 degrees are out of reach. After 2 (.125) all are 0, and 1 follows before 3 by its attention.
    assert exp(-20 * (1 - torch.tensor(10.0).deg2rad().cos().item()) ** 2) == pytest.approx(0.9954, abs=1e-4)
    assert get_method("id-selection").select(tokens, 4, context).tolist() == [0, 2, 1, 3]
    assert get_method("id-selection:gamma=100000").select(tokens, 2, context).tolist() == [0, 1]


def test_id_selection_picks_never_attract_their_neighbours() -> None:
    # Scaled: 1, .95, .9, .5, 0; 0, 1 and 2 are one place, 3 and 4 places of their own. After 0 scores are 0, 0, .5, 0;
    # after 3 all are 0: 1 and 2 follow by attention, then 4. Without the bound 1 has -.05 and 2 -.1, and 4 has 0: it
    # would be third, then 1, whose score of -.05 would raise 2 to -.05.
    context = ItemContext(vision_attention=torch.tensor([[1.0, 0.95, 0.9, 0.5, 0.0]]))
    assert get_method("id-selection").select(angles(0, 0, 0, 90, 180), 5, context).tolist() == [0, 3, 1, 2, 4]


def test_otprune_scales_columns_and_squares_the_gram_matrix() -> None:
    # Every column is 5 long: V = (.6, 0, 0), (.8, .8, .8), (0, .6, .6), G = V V^T = (.36, .48, 0), (.48, 1.92, .96),
    # (0, .96, .72). I + G G^T has 1.36, 5.8384, 2.44 on its diagonal: 1 is first. Beside it, 1.0944 for 0 and 2.5344
    # for 2: 1.36 - 1.0944^2 / 5.8384 = 1.15 and 2.44 - 2.5344^2 / 5.8384 = 1.34.
    tokens = torch.tensor([[3.0, 0, 0], [4, 4, 4], [0, 3, 3]], dtype=torch.float64)
    assert get_method("otprune:gamma=1").select(tokens, 3, IMAGE).tolist() == [1, 2, 0]


@pytest.mark.parametrize("seed", range(5))
def test_otprune_is_the_greedy_maximum_of_its_formula(seed: int) -> None:
    tokens = noise(14, 9, seed=seed).double() * torch.logspace(-2, 2, 9)
    scaled = tokens / tokens.norm(dim=0)
    gram = scaled @ scaled.T
    chosen: list[int] = []
    while len(chosen) < 8:

        def value(token: int) -> float:
            rows = gram[[*chosen, token]]
            return float(torch.logdet(torch.eye(len(rows), dtype=torch.float64) + 0.01 * rows @ rows.T))

        chosen.append(max((token for token in range(14) if token not in chosen), key=value))
    assert get_method("otprune").select(tokens, 8, IMAGE).tolist() == chosen


def test_text_similarity_is_the_cosine_with_each_text_token() -> None:
    tokens = torch.tensor([[2.0, 0.0], [0.0, 3.0], [3.0, 4.0]], dtype=torch.float64)
    context = ItemContext(text_embeddings=torch.tensor([[1.0, 0.0], [0.0, 5.0]]))
    expected = torch.tensor([[1.0, 0.0, 0.6], [0.0, 1.0, 0.8]], dtype=torch.float64)
    assert (text_similarity(tokens, context, "x") - expected).abs().max() < 1e-15


def test_cdpruner_adds_its_epsilon_before_it_divides() -> None:
    # Relevance 0, 1e-6 and .5e-6, a range of 1e-6: weights 1, 2 and 1.5. Squared: 1 is first (4). Token 0 is at a right
    # angle to it (1), token 2 at a cosine of .8: 2.25 (1 - .64) = .81. Added behind the division, weights would be
    # 1e-6, 1 and .5, and 2 second.
    tokens = torch.tensor([[0, 1, 0], [1e-6, 0, 1], [0.5e-6, 0.6, 0.8]], dtype=torch.float64)
    context = ItemContext(text_embeddings=torch.tensor([[1.0, 0.0, 0.0]]))
    assert get_method("cdpruner").select(tokens, 3, context).tolist() == [1, 0, 2]
    assert CDPruner().weights(torch.ones(3)).tolist() == [1.0, 1.0, 1.0]


def test_cdpruner_weighs_relevance_against_diversity_by_theta() -> None:
    # theta .8 is a factor of .8 / (2 * .2) = 2: weights exp(2 r), here over their largest, for r = 0, 1/2 and 1.
    weights = CDPruner(theta=0.8).weights(torch.tensor([0.0, 4.0, 8.0], dtype=torch.float64))
    assert weights.tolist() == pytest.approx([exp(-2), exp(-1), 1.0])
    # Relevance 1, .96 and 0. As it is, 1 (.96^2 (1 - .96^2) = .07) comes before 2, with weight 1e-6. theta 0 leaves
    # diversity, in which 0 and 1 are the worst pair.
    tokens = torch.tensor([[2.0, 0.0], [0.96, 0.28], [0.0, 1.0]], dtype=torch.float64)
    context = ItemContext(text_embeddings=torch.tensor([[1.0, 0.0]]))
    assert get_method("cdpruner").select(tokens, 2, context).tolist() == [0, 1]
    assert 2 in get_method("cdpruner:theta=0").select(tokens, 2, context)


@pytest.mark.parametrize("seed", range(5))
def test_cdpruner_is_the_greedy_maximum_of_the_determinant(seed: int) -> None:
    tokens, context = full_item((1, 3, 4), seed)
    text, rows = context.text_embeddings, tokens.double()
    assert text is not None
    similar = torch.nn.functional.cosine_similarity(text[:, None].double(), rows[None], dim=-1).mean(dim=0)
    weight = (similar - similar.min() + 1e-6) / (similar.max() - similar.min())
    kernel = weight[:, None] * cosines(tokens) * weight
    chosen: list[int] = []
    while len(chosen) < 6:

        def value(token: int) -> float:
            index = [*chosen, token]
            return float(torch.linalg.det(kernel[index][:, index]))

        chosen.append(max((token for token in range(12) if token not in chosen), key=value))
    assert get_method("cdpruner").select(rows, 6, context).tolist() == chosen


@pytest.mark.parametrize("seed", range(5))
def test_mmtok_covers_text_and_picture(seed: int) -> None:
    tokens, context = full_item((1, 3, 4), seed)
    text, features = context.text_embeddings, context.patch_features
    assert text is not None
    assert features is not None
    similar = torch.nn.functional.cosine_similarity(text[:, None], tokens[None], dim=-1)
    cover = torch.cat([(similar / 0.02).softmax(1) / 5, 0.5 * (cosines(features).float() / 0.2).softmax(1) / 12])
    chosen: list[int] = []
    while len(chosen) < 6:
        best = cover[:, chosen].amax(dim=1) if chosen else torch.zeros(len(cover))
        gain = (cover - best[:, None]).clamp(min=0).sum(dim=0)
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
    assert MMTok().select(tokens, 6, context).tolist() == chosen


def test_eadp_is_relevance_by_the_negative_cosine() -> None:
    # One text token, (1, 0): minus the cosines are -1, 0 and -.6, for the whole text and for its only token alike.
    tokens = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=torch.float64)
    values = EADP().relevance(tokens, ItemContext(text_embeddings=torch.tensor([[3.0, 0.0]])))
    assert values.tolist() == pytest.approx([1e-6 / (1 + 1e-6), 1.0, (0.4 + 1e-6) / (1 + 1e-6)], abs=1e-12)


def test_eadp_listens_to_the_fifth_of_the_words_with_the_lowest_entropy() -> None:
    tokens = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.6, 0.8, 0.0]], dtype=torch.float64)
    # Of ten text tokens two count. Eight are at a right angle to all (entropy log 3). (1, 0, 0) gives -1, 0, -.6, and
    # (0, 1, 0) gives 0, -1, -.8: softmaxes of 100 times that are at one token, entropies 0 but for exp(-60). Each
    # weighs a half: -.5, -.5, -.7.
    vague = torch.tensor([[0.0, 0.0, 1.0]] * 8)
    sharp = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    values = EADP(mix=0.0).relevance(tokens, ItemContext(text_embeddings=torch.cat([vague, sharp])))
    assert values.tolist() == pytest.approx([1.0, 1.0, 1e-6 / (0.2 + 1e-6)], abs=1e-9)
    # Of nine one counts, the only sharp one: 0, -1, -.8.
    values = EADP(mix=0.0).relevance(tokens, ItemContext(text_embeddings=torch.cat([vague, sharp[1:]])))
    assert values.tolist() == pytest.approx([1.0, 0.0, 0.2], abs=2e-6)


def test_eadp_covers_half_of_what_stands_at_a_right_angle() -> None:
    # Minus the cosines with (-.28, 0, .96): .28, 0, -.28, -.96, so weights 1, .96 / 1.24 = .774, .548 and 0.
    # (s + 1) / 2 is 1/2 at right angles and 0 for opposites. Gains: 1 + .387 = 1.387; .5 + .774 + .274 = 1.548;
    # .387 + .548 = .935; .5 (1 + .774 + .548) = 1.161: 1 is first. Then 0 adds .5, 2 .274, 3 nothing. By s alone 0
    # would be first, with 1.
    tokens = torch.tensor([[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    context = ItemContext(text_embeddings=torch.tensor([[-0.28, 0.0, 0.96]]))
    assert get_method("eadp").select(tokens, 4, context).tolist() == [1, 0, 2, 3]


def test_eadp_smooths_on_the_grid() -> None:
    spike = torch.zeros(9, dtype=torch.float64)
    spike[4] = 1.0
    # On a line exp(-1/2), 1, exp(-1/2) over their sum: .274, .452, .274. Reflected, an edge has the middle twice.
    middle, side = 1 / (1 + 2 * exp(-0.5)), 2 * exp(-0.5) / (1 + 2 * exp(-0.5))
    corner, edge = side**2, side * middle
    expected = [corner, edge, corner, edge, middle**2, edge, corner, edge, corner]
    one = ItemContext(grid=(1, 3, 3))
    assert smoothed(spike, grids_of(one)).tolist() == pytest.approx(expected)
    same, frames = torch.ones(18, dtype=torch.float64), ItemContext(grid=(2, 3, 3))
    assert smoothed(same, grids_of(frames)).tolist() == pytest.approx([1.0] * 18)
    assert smoothed(spike, grids_of(IMAGE)).equal(spike)
    # A tile of 3 x 3 with a newline token behind each row, behind a token of no grid; these keep their scores.
    rows = torch.cat([spike.view(3, 3), torch.full((3, 1), 7.0, dtype=torch.float64)], dim=1).flatten()
    tile = ItemContext(pieces=(Piece(1, 3, 3, 4),))
    found = smoothed(torch.cat([spike[4:5], rows]), grids_of(tile))
    assert found[0] == 1
    assert found[1:].view(3, 4)[:, 3].tolist() == [7, 7, 7]
    assert found[1:].view(3, 4)[:, :3].flatten().tolist() == pytest.approx(expected)
    line = torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert smoothed(line, grids_of(ItemContext(grid=(1, 2, 1)))).tolist() == pytest.approx([middle, side])


def test_tops_starts_at_the_most_attended_and_knows_no_text() -> None:
    tokens = angles(0, 20, 40, 120, 200)
    context = ItemContext(
        vision_attention=torch.tensor([[0.1, 0.2, 0.4, 0.1, 0.1], [0.2, 0.3, 0.4, 0.2, 0.0]]),
        text_embeddings=angles(200).float(),
    )
    assert get_method("tops").select(tokens, 1, context).tolist() == [2]
    assert get_method("tops:coverage=0,diversity=0").select(tokens, 5, context).tolist() == [2, 1, 0, 3, 4]
    # Diversity alone after the seed: 200 is 160 degrees off, then 120 (80 off), 0 (40 off).
    assert get_method("tops:coverage=0,diversity=1000").select(tokens, 4, context).tolist() == [2, 4, 3, 0]


def test_tops_adds_its_three_terms_over_the_tokens_left() -> None:
    # Attention 1, .9, .5, .5; e0, e0 again, e1, e2. After 0: attention scaled over the rest is 1, 0, 0; coverage gains
    # are 0, 1, 1, and so are differences: 1 has 1, 2 and 3 have 1 + 1. Then 1 has 1 + 0 + 0 and 3 has 0 + 1 + 1.
    tokens = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    context = ItemContext(vision_attention=torch.tensor([[1.0, 0.9, 0.5, 0.5]]))
    assert get_method("tops").select(tokens, 4, context).tolist() == [0, 2, 3, 1]
    assert get_method("tops:coverage=0.25,diversity=0.25").select(tokens, 4, context).tolist() == [0, 1, 2, 3]


def test_effective_rank_counts_equal_directions() -> None:
    assert effective_rank(torch.eye(5)) == pytest.approx(5)
    assert effective_rank(torch.ones(5, 3)) == pytest.approx(1)
    assert effective_rank(torch.zeros(5, 3)) == pytest.approx(1, abs=1)


def test_agile_pruner_visits_by_attention_and_skips_what_is_alike() -> None:
    features = angles(0, 8, 90, 98, 180).float()
    attention = torch.tensor([[0.5, 0.4, 0.3, 0.2, 0.1]])
    context = ItemContext(vision_attention=attention, patch_features=features)
    # 8 degrees are a distance of 0.0097; two directions of unequal strength: a rank of almost 2.
    always = AgilePruner(average_rank=1.0)
    assert always.select(features, 3, context).tolist() == [0, 2, 4]
    assert always.select(features, 4, context).tolist() == [0, 2, 4, 1]
    never = AgilePruner(largest_threshold=0.0)
    assert never.select(features, 3, context).tolist() == [0, 1, 2]


def test_evs_keeps_the_first_frame_and_what_changes() -> None:
    first = angles(0, 0, 0)
    second = angles(10, 90, 0)
    third = angles(10, 100, 180)
    context = ItemContext(modality="video", grid=(3, 1, 3))
    tokens = torch.cat([first, second, third]) * 7
    assert EVS().select(tokens, 9, context).tolist()[:7] == [0, 1, 2, 8, 4, 3, 7]
    with pytest.raises(ValueError, match="'evs' compares the frames of a video, got an item of modality 'image'"):
        EVS().select(tokens, 2, ItemContext(grid=(3, 1, 3)))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mmr:weight=2", "weight must be between 0 and 1, got 2"),
        ("id-selection:gamma=-1", "gamma must be at least 0, got -1"),
        ("scope:alpha=-1", "alpha must be at least 0"),
        ("otprune:gamma=0", "gamma must be at least 1e-12, got 0"),
        ("mmtok:text_temperature=0", "text_temperature must be at least 0.0001, got 0"),
        ("agilepruner:average_rank=nan", "average_rank must be at least 1, got nan"),
        ("vispruner:important_ratio=1.5", "important_ratio must be between 0 and 1, got 1.5"),
        ("tops:diversity=-1", "diversity must be at least 0"),
        ("cdpruner:theta=1", r"theta must be in \[0, 1\), or None, got 1.0"),
        ("cdpruner:theta=x", "parameter 'theta' of method 'cdpruner' must be of type float, got 'x'"),
        ("eadp:mix=2", "mix must be between 0 and 1"),
    ],
)
def test_parameters_out_of_range_are_refused(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_method(spec)
