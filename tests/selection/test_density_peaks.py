"""Clustering by density peaks, worked out by hand."""

import pytest
import torch

from divprune.selection.density_peaks import clusters

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
