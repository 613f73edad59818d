"""Swaps never lower the max-min distance, and often raise it."""

import pytest
import torch

from divprune import DivPrune, select
from divprune.methods import ItemContext, get_method
from divprune.selection import refine
from divprune.selection.distances import METRICS
from divprune.selection.reference import reference_distances
from tests.selection.cases import KINDS, tokens
from tests.support.exhaustive import exact_select


def max_min(rows, kept, metric="cosine"):
    return float(reference_distances(rows, metric)[kept][:, kept].fill_diagonal_(torch.inf).min())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_never_lower_and_as_many_distinct_tokens(kind, metric):
    for seed in range(20):
        rows = tokens(kind, 12 + 3 * seed, 2 + seed, seed)
        for count in (1, 2, 5, 11, len(rows)):
            greedy = select(rows, num_keep=count, metric=metric)
            refined = refine(greedy, rows, metric)
            order = refined.selection_order
            assert len(order) == refined.num_kept == count == len(order.unique())
            assert int(order.min()) >= 0
            assert int(order.max()) < len(rows)
            assert torch.equal(refined.kept_indices, order.sort().values)
            if count > 1:
                assert refined.max_min_distance >= greedy.max_min_distance
                reached = max_min(rows, order, metric)
                assert refined.max_min_distance == pytest.approx(reached, abs=2e-6, rel=2e-6)
                assert (refined.distance_when_chosen.diff()[1:] <= 0).all()


def test_random_sets_are_often_improved_and_never_beyond_the_optimum():
    improved = 0
    for seed in range(60):
        rows = tokens("gaussian", 13, 3, seed)
        greedy = select(rows, num_keep=5)
        refined = refine(greedy, rows)
        improved += refined.max_min_distance > greedy.max_min_distance + 1e-6
        assert refined.max_min_distance <= exact_select(rows, 5)[1] + 1e-6
    assert improved >= 30


def test_a_chain_moves_more_than_one_token():
    # On a line 0, 4 and 9 are kept, 4 apart. Taking 10 for 9 and 5 for 4 helps only together.
    rows = torch.tensor([[0.0], [4.0], [5.0], [9.0], [10.0]])
    start = select(rows[[0, 1, 3]], num_keep=3, metric="l2")
    assert start.max_min_distance == 4
    places = torch.tensor([0, 1, 3])
    chosen = type(start)(places, places[start.selection_order], start.distance_when_chosen, 3)
    refined = refine(chosen, rows, "l2")
    assert refined.kept_indices.tolist() == [0, 2, 4]
    assert refined.max_min_distance == 5


def test_what_cannot_be_improved_comes_back_itself():
    rows = torch.eye(6)
    picked = select(rows, num_keep=3)
    assert refine(picked, rows) is picked


def test_the_same_input_gives_the_same_tokens():
    rows = tokens("clusters", 80, 8, 0)
    greedy = select(rows, num_keep=20)
    assert torch.equal(refine(greedy, rows).selection_order, refine(greedy, rows).selection_order)


def test_the_method_refines_when_asked():
    rows = tokens("gaussian", 40, 3, 0)
    plain, refined = (method.select(rows, 8, ItemContext()) for method in (DivPrune(), DivPrune(refine=True)))
    assert max_min(rows, refined) > max_min(rows, plain) + 1e-6
    assert get_method("divprune:refine=true") == DivPrune(refine=True)


def test_a_batch_is_refused_with_the_remedy():
    rows = torch.randn(2, 8, 4)
    with pytest.raises(ValueError, match=r"refine each selection.row"):
        refine(select(rows, num_keep=3), rows)
