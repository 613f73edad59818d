"""SparseVLM on its own: raters, counts, and what becomes of the dropped."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from divprune import get_method
from divprune.methods import ItemContext, SparseVLM
from divprune.methods.sparse_vlm import raters

ON_A_LINE = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 3.0, 0.0, 0.0, 0.0, 0.0]).unsqueeze(1)


def falling(total: int, num_text: int = 1) -> ItemContext:
    """A context in which the first tokens are attended most, by every text token."""
    scores = torch.arange(total, 0, -1).float() / total**2
    return ItemContext(
        text_attention=scores.expand(2, num_text, -1),
        text_embeddings=torch.ones(num_text, 1),
        input_tokens=torch.ones(total, 1),
    )


@pytest.mark.parametrize(
    ("tokens", "counts", "mean"),
    [
        (192, (309, 204, 113), 206.5),
        (128, (312, 117, 39), 145.40625),
        (96, (249, 55, 27), 114.09375),
        (64, (82, 32, 18), 82.25),
    ],
)
def test_layers_2_6_and_15_score_and_the_next_ones_hold_published_and_recycled_tokens(
    tokens: int, counts: tuple[int, ...], mean: float
) -> None:
    stages = SparseVLM(tokens=tokens).schedule(576)
    assert [stage.layer for stage in stages] == [3, 7, 16]
    assert tuple(stage.num_keep for stage in stages) == counts
    layers = [*(stage.layer for stage in stages), 32]
    runs = [3 * 576] + [
        (end - begin) * stage.num_keep for stage, (begin, end) in zip(stages, pairwise(layers), strict=True)
    ]
    assert sum(runs) / 32 == mean


def test_without_recycling_the_published_lists_are_the_counts() -> None:
    lists = {192: (300, 200, 110), 128: (303, 110, 36), 96: (238, 48, 26), 64: (66, 30, 17)}
    for tokens, kept in lists.items():
        stages = SparseVLM(tokens=tokens, recycle=False).schedule(576)
        assert tuple(stage.num_keep for stage in stages) == kept


def test_at_576_tokens_as_many_are_kept_by_score_as_published() -> None:
    for tokens, kept in {192: (300, 200, 110), 128: (303, 110, 36), 96: (238, 48, 26), 64: (66, 30, 17)}.items():
        method, left = SparseVLM(tokens=tokens), 576
        for stage, num_kept in zip(method.schedule(576), kept, strict=True):
            values = torch.randn(left, 4, generator=torch.Generator().manual_seed(0))
            weights = method.merge(values, stage.num_keep, falling(left)).weights
            assert weights[:num_kept].equal(torch.eye(left)[:num_kept])
            assert bool((weights[num_kept:, :num_kept] == 0).all())
            recycled = int((weights[num_kept:] > 0).sum())
            assert recycled == int(0.3 * (left - num_kept)) + 1
            left = stage.num_keep


@pytest.mark.parametrize("recycle", [True, False])
def test_counts_never_grow_and_never_vanish(recycle: bool) -> None:
    for tokens in (192, 128, 96, 64):
        for total in range(1, 200):
            stages = SparseVLM(tokens=tokens, recycle=recycle).schedule(total)
            counts = [total, *(stage.num_keep for stage in stages)]
            assert counts == sorted(counts, reverse=True)
            assert counts[-1] >= 1


def test_raters_are_the_words_that_look_like_the_pictures() -> None:
    text = torch.tensor([[0.0, 2.0], [2.0, 0.0], [0.0, 0.0], [1.9, 0.0]])
    # exp of the products 0, 2, 0, 1.9: the shares are .06, .47, .06, .42; above the mean of 1/4 are two.
    assert raters(torch.tensor([[1.0, 0.0]]), text).tolist() == [1, 3]
    assert raters(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), text).tolist() == [0]
    # One word, or words that are all alike: none is above the mean, and all rate.
    assert raters(torch.ones(3, 2), torch.ones(4, 2)).tolist() == [0, 1, 2, 3]


def test_only_raters_are_asked() -> None:
    attention = torch.tensor([[0.1, 0.6, 0.3], [0.6, 0.1, 0.3]]).expand(2, -1, -1)  # (heads, text, tokens)
    context = ItemContext(
        text_attention=attention,
        text_embeddings=torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        input_tokens=torch.tensor([[1.0, 0.0]]),
    )
    method = SparseVLM(recycle=False)
    assert method.select(torch.zeros(3, 2), 2, context).tolist() == [1, 2]
    other = replace(context, input_tokens=torch.tensor([[0.0, 1.0]]))
    assert method.select(torch.zeros(3, 2), 2, other).tolist() == [0, 2]


def test_the_best_of_the_dropped_become_their_mean_in_the_place_of_the_centre() -> None:
    # Kept are 3; of the 7 dropped, int(2.1) + 1 = 3 are recycled, the fourth to the sixth, to one cluster. Each is its
    # own only neighbour, all are equally dense, and the first of them, at 0, is 3 from the farthest.
    merged = SparseVLM().merge(ON_A_LINE, 4, falling(10))
    assert merged.anchors.tolist() == [0, 1, 2, 3]
    assert merged.weights[:3].equal(torch.eye(10)[:3])
    assert merged.weights[3].tolist() == pytest.approx([0, 0, 0, 1 / 3, 1 / 3, 1 / 3, 0, 0, 0, 0])
    assert merged.tokens(ON_A_LINE)[3].item() == pytest.approx(4 / 3)
    lost = SparseVLM(recycle=False).merge(ON_A_LINE, 4, falling(10))
    assert (lost.anchors.tolist(), lost.weights.equal(torch.eye(10)[:4])) == ([0, 1, 2, 3], True)


def test_one_token_leaves_no_room_for_recycling() -> None:
    merged = SparseVLM().merge(ON_A_LINE, 1, falling(10))
    assert (merged.anchors.tolist(), merged.weights.equal(torch.eye(10)[:1])) == ([0], True)


def test_a_prompt_without_text_is_refused() -> None:
    empty: dict[str, Tensor] = {"text_attention": torch.ones(2, 0, 4), "text_embeddings": torch.ones(0, 1)}
    with pytest.raises(ValueError, match="the prompt must hold text for method 'sparsevlm'"):
        SparseVLM().select(torch.zeros(4, 2), 2, ItemContext(input_tokens=torch.ones(4, 1), **empty))


def test_parameters_come_from_the_command_line() -> None:
    method = get_method("sparsevlm:tokens=64,first_layer=1,second_layer=2,third_layer=3,recycle=false")
    assert method == SparseVLM(tokens=64, first_layer=1, second_layer=2, third_layer=3, recycle=False)
    assert method.layers == (1, 2, 3)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"tokens": 100}, "tokens must be one of 192, 128, 96, 64, got 100"),
        ({"first_layer": 0}, "first_layer must be at least 1, got 0"),
        ({"first_layer": 7}, "second_layer must be at least 8, got 7"),
        ({"third_layer": 7}, "third_layer must be at least 8, got 7"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseVLM(**parameters)
