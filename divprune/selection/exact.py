"""The true optimum of the max-min diversity problem (Eq. 3 of the paper), for small sets.

The problem is NP-hard, so this is a yardstick for the greedy picks and no way to prune. `exact_select_milp` needs the
extra `exact` (scipy).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from divprune.errors import MissingDependencyError
from divprune.lazy_torch import torch
from divprune.selection.reference import reference_distances

if TYPE_CHECKING:
    from torch import Tensor


def exact_select_milp(visual_tokens: Tensor, num_keep: int, metric: str = "cosine") -> tuple[list[int], float]:
    """Find the optimum by integer programming, for M up to about 60.

    The largest threshold is searched at which `num_keep` tokens exist of which no two are nearer than it; each step
    asks `scipy.optimize.milp` for the largest set without such a pair.

    Returns:
        A best subset of `num_keep` (at least 2) tokens, ascending, and its smallest pairwise distance.

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    distance = reference_distances(visual_tokens, metric)
    first, second = torch.triu_indices(len(distance), len(distance), offset=1)
    pair_distance = distance[first, second]
    thresholds = pair_distance.unique()
    if num_keep < 2:
        raise ValueError(f"num_keep must be at least 2 (one token has no pairwise distance), got {num_keep}")
    kept = list(range(num_keep))
    low, high = 0, len(thresholds) - 1
    while low <= high:
        middle = (low + high) // 2
        near = pair_distance < thresholds[middle]
        found = _largest_independent_set(len(distance), first[near], second[near])
        if len(found) >= num_keep:
            kept, low = found[:num_keep], middle + 1
        else:
            high = middle - 1
    block = distance[kept][:, kept].fill_diagonal_(torch.inf)
    return kept, float(block.min())


def _largest_independent_set(total: int, first: Tensor, second: Tensor) -> list[int]:
    """Return as many of `total` tokens as possible without any of the pairs (first, second)."""
    try:
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array
    except ImportError as error:
        raise MissingDependencyError("the exact optimum needs scipy: pip install 'divprune[exact]'") from error
    if not len(first):
        return list(range(total))
    row = torch.arange(len(first)).repeat(2).numpy()
    column = torch.cat([first, second]).numpy()
    pairs = csr_array((torch.ones(len(row)).numpy(), (row, column)), shape=(len(first), total))
    ones = torch.ones(total).numpy()
    result = milp(-ones, integrality=ones, bounds=Bounds(0, 1), constraints=LinearConstraint(pairs, ub=1))
    return [token for token, chosen in enumerate(result.x) if chosen > 0.5]
