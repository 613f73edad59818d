"""Upper bounds on the max-min distance (Eq. 3 of the DivPrune paper) that any choice of k tokens of a set can reach.

Each holds by an argument of two lines and is computed from the set itself. None needs the triangle inequality, so all
hold for zero vectors too.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from divprune.lazy_torch import torch
from divprune.selection.distances import ALL, Distances, picked

if TYPE_CHECKING:
    from torch import Tensor

_DIRECTION_STEPS = 50


def cover_bound(distances: Distances, centres: Tensor) -> float:
    """Return the largest distance between two tokens that share their nearest centre.

    Of k tokens, two share the nearest of k - 1 centres, and are no farther apart than their group is wide. With the
    first k - 1 greedy picks as centres, every token is within the greedy distance g of its centre. Two in a group are
    then at cosine distance 4 g - 2 g^2 at most (twice the angle), which is less than the 4 g of the worst case.

    Args:
        distances: Of one set of M tokens.
        centres: (k - 1,) int64, at least one.
    """
    nearest = distances.block(ALL, centres).argmin(dim=1)
    groups = ((nearest == place).nonzero().squeeze(1) for place in range(len(centres)))
    return max(float(distances.block(group, group).fill_diagonal_(0.0).max()) for group in groups if len(group))


def linkage_bound(matrix: Tensor, num_keep: int) -> float:
    """Return the width of the widest of k - 1 groups that complete linkage finds.

    Of k tokens, two are in one group. Complete linkage merges the two groups whose union is the least wide; by chains
    of nearest neighbours (F. Murtagh, The Computer Journal 26, 1983) it takes O(M^2) steps.

    Args:
        matrix: (M, M), all distances of one set; overwritten.
        num_keep: k, between 2 and M.
    """
    matrix.fill_diagonal_(inf)
    widths: list[float] = []
    chain: list[int] = []
    alive = torch.ones(len(matrix), dtype=torch.bool, device=matrix.device)
    while len(widths) < len(matrix) - 1:
        if not chain:
            chain = [int(alive.int().argmax())]
        row = matrix[chain[-1]]
        nearest = int(row.argmin())
        # Going back on a tie ends the chain.
        if len(chain) > 1 and row[chain[-2]] <= row[nearest]:
            last, nearest = chain.pop(), chain.pop()
            widths.append(float(matrix[last, nearest]))
            _merge(matrix, nearest, last)
            alive[last] = False
        else:
            chain.append(nearest)
    # M - (k - 1) merges leave k - 1 groups. Chains find the merges out of order, and no merge is less wide than an
    # earlier one of its parts.
    return sorted(widths)[len(matrix) - num_keep]


def _merge(matrix: Tensor, kept: int, gone: int) -> None:
    """Let group `kept` take in group `gone`."""
    row = torch.maximum(matrix[kept], matrix[gone])
    row[kept] = inf
    matrix[kept], matrix[:, kept] = row, row
    matrix[gone], matrix[:, gone] = inf, inf


def spread_bound(distances: Distances, num_keep: int) -> float:
    """Return the largest mean cosine distance between k tokens, bounded from above.

    Unit vectors whose mean has length m are at mean distance k / (k - 1) * (1 - m^2). Along any direction u, m is at
    least the mean of the k smallest components along u; a direction that makes it large is searched. With m = 0 this
    is the distance in a regular simplex.

    Args:
        distances: Cosine distances of one set of M tokens.
        num_keep: k, between 2 and M.
    """
    unit = distances.unit_tokens()
    mean, shortest = unit.mean(dim=0), 0.0
    for _ in range(_DIRECTION_STEPS):
        length = float(mean.norm())
        if length <= torch.finfo(unit.dtype).eps:
            break
        least = (unit @ mean).topk(num_keep, largest=False)
        shortest = max(shortest, float(least.values.mean()) / length)
        # Frank and Wolfe's step towards the shortest mean that k tokens can have.
        away = mean - picked(unit, least.indices).mean(dim=0)
        gap = float(away @ mean)
        if gap <= 1e-4 * length**2:
            break
        mean = mean - min(1.0, gap / float(away @ away)) * away
    return num_keep / (num_keep - 1) * (1 - shortest**2)
