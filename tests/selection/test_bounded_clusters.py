"""Density peaks with bounded distances, worked out by hand and against a slow reference."""

from math import exp, inf

import pytest
import torch
from torch import Tensor

from divprune.selection.bounded_clusters import bounded_centres, distances_to_denser


def apart(*points: float) -> Tensor:
    line = torch.tensor(points, dtype=torch.float64)
    return (line.unsqueeze(0) - line.unsqueeze(1)).abs()


def test_centres_are_far_from_all_that_are_denser() -> None:
    # Densities by the sums of exp(-distance / 2): 0: 1 + .607 + .368 + .018 = 1.993; 1: .607 + 1 + .607 + .030 = 2.244;
    # 2: .368 + .607 + 1 + .050 = 2.024; 8: .018 + .030 + .050 + 1 = 1.098.
    line = apart(0, 1, 2, 8)
    assert distances_to_denser(line).tolist() == [1, inf, 1, 6]
    assert bounded_centres(line, 1.0).tolist() == [False, True, False, True]
    # The last is 6 from a denser one and 7 from the centre.
    assert bounded_centres(line, 6.0).tolist() == [False, True, False, True]
    assert bounded_centres(line, 7.0).tolist() == [False, True, False, False]
    assert bounded_centres(line, 0.5).tolist() == [True] * 4


def test_what_is_near_no_centre_is_clustered_again() -> None:
    # The middle of five is the densest. Its neighbours are within 1 of it; the ends are within 1 of a denser one, which
    # is no centre, and 2 from the middle: two clusters of their own.
    assert bounded_centres(apart(0, 1, 2, 3, 4), 1.0).tolist() == [True, False, True, False, True]


def test_of_equal_tokens_the_first_is_the_centre() -> None:
    same = torch.zeros(3, 3, dtype=torch.float64)
    assert bounded_centres(same, 0.0).tolist() == [True, False, False]
    assert distances_to_denser(same).tolist() == [inf, 0, 0]


def slow_centres(distance: Tensor, cutoff: float) -> list[bool]:
    total = len(distance)
    density = [sum(exp(-float(value) / 2) for value in row) for row in distance]
    order = sorted(range(total), key=lambda token: (-density[token], token))
    centres: list[int] = []
    left = list(order)
    while left:
        found = [
            token
            for number, token in enumerate(left)
            if all(float(distance[token, other]) > cutoff for other in left[:number])
        ]
        centres += found
        left = [token for token in left if all(float(distance[token, centre]) > cutoff for centre in centres)]
    return [token in centres for token in range(total)]


@pytest.mark.parametrize("seed", range(6))
def test_centres_are_those_of_the_rule_written_out(seed: int) -> None:
    points = torch.rand(40, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    for cutoff in (0.05, 0.2, 0.5):
        centres = bounded_centres(distance, cutoff)
        assert centres.tolist() == slow_centres(distance, cutoff)
        assert bool((distance[:, centres].amin(dim=1) <= cutoff).all())
