"""The bound is never below the true optimum, is tighter than the worst case, and says what it rests on."""

from statistics import median

import pytest
import torch

from divprune import certificate, select
from divprune.selection import optimality
from divprune.selection.bounds import cover_bound, linkage_bound, spread_bound
from divprune.selection.distances import METRICS, Distances
from divprune.selection.exact import exact_select_milp
from divprune.selection.reference import reference_distances
from tests.selection.cases import KINDS, tokens
from tests.support.exhaustive import exact_select

ROUNDING = 1e-5


def circle(*degrees):
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_no_bound_is_below_the_optimum(kind, metric):
    for seed in range(12):
        rows = tokens(kind, 6 + seed % 5, 2 + seed % 3, seed)
        for count in (2, 3, 4, 5):
            optimum = exact_select(rows, count, metric)[1]
            distances = Distances(rows, metric)
            bounds = [
                cover_bound(distances, select(rows, num_keep=count - 1, metric=metric).selection_order),
                linkage_bound(distances.matrix(), count),
            ]
            if metric == "cosine":
                bounds.append(spread_bound(distances, count))
            assert min(bounds) >= optimum - ROUNDING * max(1, optimum)
            given = certificate(select(rows, num_keep=count, metric=metric), rows, metric)
            assert given.bound == min(bounds)


@pytest.mark.parametrize("seed", range(6))
def test_larger_sets_too(seed):
    rows = tokens(("gaussian", "clusters", "offset")[seed % 3], 40, 3 + seed, seed)
    for count in (4, 8):
        assert certificate(select(rows, num_keep=count), rows).bound >= exact_select_milp(rows, count)[1] - ROUNDING


def test_the_bound_is_below_the_worst_case_for_every_set():
    ratios = []
    for seed in range(180):
        rows = tokens(KINDS[seed % len(KINDS)], 30, 2 + seed % 7, seed)
        # Zero rows are at distance 1 from their copies; the worst case knows no such thing.
        rows = rows[rows.abs().sum(dim=1) > 0].double()
        count = 2 + seed % 12
        picked = select(rows, num_keep=count)
        greedy, bound = picked.max_min_distance, certificate(picked, rows).bound
        assert bound <= 4 * greedy - 2 * min(greedy, 1) ** 2 + 1e-9
        if greedy > 1e-6:
            ratios.append(bound / greedy)
    assert max(ratios) < 3.9
    assert median(ratios) < 2


def test_on_a_circle_the_bound_is_the_optimum():
    # Three close pairs, 120 degrees apart: of four tokens two are one pair, 10 degrees apart at most.
    rows = circle(0.0, 10.0, 120.0, 125.0, 240.0, 245.0)
    given = certificate(select(rows, num_keep=4), rows)
    assert given.bound == pytest.approx(1 - float(torch.tensor(10.0).deg2rad().cos()), abs=1e-6)
    assert given.share_of_optimum == pytest.approx(1, abs=1e-4)


def test_two_tokens_and_all_tokens_are_certified_exactly():
    rows = tokens("gaussian", 30, 8, 0)
    distance = reference_distances(rows)
    assert certificate(torch.tensor([0, 1]), rows).bound == pytest.approx(float(distance.max()), abs=1e-6)
    everything = certificate(torch.arange(30), rows)
    assert everything.bound == pytest.approx(float(distance.fill_diagonal_(torch.inf).min()), abs=1e-6)
    assert everything.share_of_optimum == pytest.approx(1, abs=1e-5)


def test_a_simplex_is_certified_by_its_spread():
    # Four corners of a regular simplex and tokens around it: nothing beats 4 / 3.
    corners = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    rows = torch.cat([corners, tokens("gaussian", 40, 3, 0)])
    given = certificate(torch.arange(4), rows)
    assert given.argument == "spread"
    assert given.max_min_distance == pytest.approx(4 / 3, abs=1e-6)
    assert given.share_of_optimum == pytest.approx(1, abs=1e-3)


def test_a_common_direction_lowers_the_spread():
    rows = torch.nn.functional.normalize(tokens("gaussian", 200, 64, 0)) + torch.eye(64)[0]
    assert spread_bound(Distances(rows, "cosine"), 20) < 0.75


def test_any_choice_can_be_certified_and_the_bound_is_the_sets():
    rows = tokens("clusters", 60, 16, 0)
    greedy = certificate(select(rows, num_keep=10), rows)
    first = certificate(torch.arange(10), rows)
    assert first.bound == greedy.bound
    assert first.max_min_distance < greedy.max_min_distance
    assert 0 <= first.share_of_optimum < greedy.share_of_optimum <= 1
    copies = torch.ones(5, 3)
    assert certificate(select(copies, num_keep=3), copies).share_of_optimum == 1


def test_without_a_matrix_the_bound_still_holds(monkeypatch):
    rows = tokens("clusters", 60, 16, 0)
    whole = certificate(select(rows, num_keep=10), rows)
    assert whole.argument == "complete linkage"
    monkeypatch.setattr(optimality, "MATRIX_BYTES", 1000)
    lean = certificate(select(rows, num_keep=10), rows)
    assert lean.argument == "greedy cover"
    assert lean.bound >= whole.bound


@pytest.mark.parametrize("width", [2, 16])
def test_complete_linkage_is_scipys(width):
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    rows = tokens("gaussian", 50, width, 0).double()
    matrix = reference_distances(rows)
    first, second = torch.triu_indices(50, 50, offset=1)
    widths = sorted(hierarchy.complete(matrix[first, second].numpy())[:, 2])
    for count in (2, 9, 30, 50):
        assert linkage_bound(matrix.clone(), count) == pytest.approx(widths[50 - count], abs=1e-9)


@pytest.mark.parametrize(
    ("selection", "error", "message"),
    [
        (torch.tensor([0]), ValueError, "k >= 2 tokens"),
        (torch.tensor([[0, 1]]), ValueError, r"k >= 2 tokens, got shape \(1, 2\)"),
        (torch.tensor([0, 0]), ValueError, "distinct indices below the number of visual tokens, 8"),
        (torch.tensor([0, 8]), ValueError, "distinct indices below the number of visual tokens, 8"),
        (torch.tensor([-1, 3]), ValueError, "distinct indices"),
        (torch.tensor([0.0, 1.0]), TypeError, "tensor of indices, got torch.float32"),
        ([0, 1], TypeError, "tensor of indices, got list"),
    ],
)
def test_what_is_no_choice_is_refused(selection, error, message):
    with pytest.raises(error, match=message):
        certificate(selection, torch.randn(8, 4))


def test_what_are_no_tokens_is_refused():
    kept = torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"selection.row"):
        certificate(kept, torch.randn(2, 8, 4))
    with pytest.raises(ValueError, match="metric must be one of"):
        certificate(kept, torch.randn(8, 4), metric="dot")
    with pytest.raises(ValueError, match="must be finite"):
        certificate(kept, torch.full((8, 4), torch.nan))
