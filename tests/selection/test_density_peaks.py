"""Clustering by density peaks, worked out by hand."""

from math import inf, log

import pytest
import torch
from torch import Tensor

from divprune.selection.density_peaks import NO_CENTRE, centres_of, clusters, densest

# Means of squared distances to all four, itself included: 5.56, 2.81, 3.31, 4.69, so that the second is the densest.
# Distances to anything denser: 1, 2.5 (to the farthest), 2, 0.5. The products of exp(-mean) and these: .0038, .150,
# .073, .0046.
LINE = torch.tensor([0.0, 1.0, 3.0, 3.5], dtype=torch.float64)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
@pytest.mark.parametrize("width", [1, 4])
def test_dense_tokens_far_from_denser_ones_are_centres(scale: float, width: int) -> None:
    """Whatever the width, and where densities are too small for a float."""
    tokens = scale * LINE[:, None].expand(-1, width)
    assert [part.tolist() for part in clusters(tokens, 1, 4)] == [[1], [0, 0, 0, 0]]
    assert [part.tolist() for part in clusters(tokens, 2, 4)] == [[1, 2], [0, 0, 1, 1]]
    if scale == 1:
        assert [part.tolist() for part in clusters(tokens, 3, 4)] == [[1, 2, 3], [0, 0, 1, 2]]
    assert [part.tolist() for part in clusters(tokens, 4, 4)] == [[0, 1, 2, 3], [0, 1, 2, 3]]


def test_by_default_as_many_neighbours_count_as_there_are_clusters_and_a_token_is_its_own() -> None:
    # Two: means 1/2, 1/2, 1/8, 1/8. The third is the densest (3 to the farthest), the fourth .5 from it; the first is 3
    # from anything denser, the second 1 from the first. Products: 1.82, .61, 2.65, .44. Without itself, or with five
    # neighbours, the second would be a centre.
    assert [part.tolist() for part in clusters(LINE[:, None], 2)] == [[0, 2], [0, 0, 1, 1]]
    # One: every density is 1, and the first counts as the densest, 3.5 from the farthest.
    assert clusters(LINE[:, None], 1).centres.tolist() == [0]


def test_only_the_nearest_count() -> None:
    heap = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 50.0]).unsqueeze(1)
    # Six, itself among them: sums of squares are 55, 31, 19, 19, 31, 55 with the far token as without it, and the first
    # of the densest is a centre. The far token is 45 away from the rest, but too thin.
    assert clusters(heap[:6], 1, 6).centres.tolist() == clusters(heap, 1, 6).centres.tolist() == [2]
    assert 6 not in clusters(heap, 2, 6).centres.tolist()


def test_copies_go_to_the_lowest_index() -> None:
    centres, members = clusters(torch.ones(5, 3), 2)
    assert (centres.tolist(), members.tolist()) == ([0, 1], [0, 1, 0, 0, 0])


def test_one_token_is_its_own_cluster() -> None:
    assert [part.tolist() for part in clusters(torch.ones(1, 3, dtype=torch.bfloat16), 1)] == [[0], [0]]


def slow_centres(tokens: Tensor, num_clusters: int, num_neighbours: int) -> list[int]:
    """The rule of `centres_of` for one set, token by token."""
    total = len(tokens)
    apart = [[float((one - other).norm()) / tokens.shape[1] ** 0.5 for other in tokens] for one in tokens]
    density = []
    for row, own in zip(apart, range(total), strict=True):
        nearest = sorted(value**2 for number, value in enumerate(row) if number != own)[:num_neighbours]
        density.append(-sum(nearest) / max(1, len(nearest)))
    peaks = []
    for own in range(total):
        denser = [other for other in range(total) if (-density[other], other) < (-density[own], own)]
        separation = min(apart[own][other] for other in denser) if denser else max(apart[own])
        peaks.append(-inf if separation == 0 else density[own] + log(separation))
    centres = sorted(range(total), key=lambda own: (-peaks[own], own))[:num_clusters]
    nearest_centre = [min(centres, key=lambda centre: (apart[own][centre], centre)) for own in range(total)]
    return [own if own in centres else nearest_centre[own] for own in range(total)]


@pytest.mark.parametrize("seed", range(5))
def test_sets_are_clustered_as_one_by_one(seed: int) -> None:
    """Sets of 1 to 9 tokens among 9, each with a number of clusters and neighbours of its own."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(6, 9, 3, generator=generator, dtype=torch.float64)
    present = torch.rand(6, 9, generator=generator) < 0.6
    present[:, seed] = True
    sizes = present.sum(dim=1)
    num_clusters = (torch.rand(6, generator=generator) * (sizes + 1)).long().clamp(max=sizes)
    neighbours = torch.randint(1, 8, (6,), generator=generator)
    found = centres_of(tokens, num_clusters, neighbours, present)
    for own, centres, count, num_neighbours, here in zip(
        tokens, found, num_clusters.tolist(), neighbours.tolist(), present, strict=True
    ):
        numbers = here.nonzero().squeeze(1)
        expected = torch.full((9,), NO_CENTRE)
        if count:
            expected[numbers] = numbers[slow_centres(own[numbers], count, num_neighbours)]
        assert centres.tolist() == expected.tolist()


def test_absent_tokens_neither_count_nor_cluster() -> None:
    # Without the last token this is LINE, of which 1 and 2 are the centres; with two neighbours the means of squares
    # are (1 + 9) / 2, (1 + 4) / 2, (.25 + 4) / 2, (.25 + 6.25) / 2, and the third, the densest, is 3 from the first:
    # exp(-2.125) * 3 = .358; the second is 2 from it: exp(-2.5) * 2 = .164; the first exp(-5) * 1 and the last
    # exp(-3.25) * .5 = .019.
    tokens = torch.cat([LINE, torch.tensor([3.1])])[None, :, None]
    present = torch.tensor([[True, True, True, True, False]])
    assert centres_of(tokens, torch.tensor([1]), 2, present).tolist() == [[2, 2, 2, 2, NO_CENTRE]]
    assert centres_of(tokens, torch.tensor([2]), 2, present).tolist() == [[1, 1, 2, 2, NO_CENTRE]]
    assert densest(tokens, 2, present).tolist() == [[2, 1, 3, 0, 4]]
