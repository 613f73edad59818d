"""The true optimum, and how near the greedy picks come to it."""

import builtins

import pytest
import torch

from divprune.errors import MissingDependencyError
from divprune.selection import select
from divprune.selection.exact import exact_select_milp
from divprune.selection.reference import reference_distances
from tests.selection.cases import KINDS, tokens
from tests.support.exhaustive import exact_select


@pytest.mark.parametrize("seed", range(12))
def test_both_exact_ways_agree(seed):
    rows = tokens("gaussian", 11, 4, seed)
    for count in (2, 4, 7):
        kept, best = exact_select(rows, count)
        also, same = exact_select_milp(rows, count)
        assert len(kept) == len(also) == count
        assert same == pytest.approx(best, abs=1e-9)
        block = reference_distances(rows)[also][:, also].fill_diagonal_(torch.inf)
        assert float(block.min()) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("seed", range(40))
def test_greedy_reaches_half_of_the_optimum_in_chordal_distance(seed):
    rows = tokens(KINDS[seed % len(KINDS)], 10, 3, seed)
    # Zero rows are outside: they are at distance 1 from their copies too.
    rows = rows[rows.abs().sum(dim=1) > 0]
    for count in range(2, min(6, len(rows)) + 1):
        optimum = max(0.0, exact_select(rows, count)[1])
        greedy = select(rows.double(), num_keep=count).max_min_distance
        assert (2 * greedy) ** 0.5 >= 0.5 * (2 * optimum) ** 0.5 - 1e-6


def test_sixty_points_are_within_reach():
    rows = tokens("gaussian", 60, 3, 0)
    kept, best = exact_select_milp(rows, 8)
    assert len(set(kept)) == 8
    assert best >= select(rows, num_keep=8).max_min_distance - 1e-6


def test_one_token_has_no_pairwise_distance():
    with pytest.raises(ValueError, match="num_keep must be at least 2"):
        exact_select_milp(tokens("gaussian", 5, 3, 0), 1)


def test_missing_scipy_is_named(monkeypatch):
    real = builtins.__import__

    def without_scipy(name, *arguments, **options):
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_scipy)
    with pytest.raises(MissingDependencyError, match=r"divprune\[exact\]"):
        exact_select_milp(tokens("gaussian", 5, 3, 0), 2)
