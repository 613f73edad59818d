"""The true optimum of the max-min diversity problem (Eq. 3 of the paper), by trying every subset."""

from itertools import combinations

from torch import Tensor

from divprune.selection.reference import reference_distances


def exact_select(visual_tokens: Tensor, num_keep: int, metric: str = "cosine") -> tuple[list[int], float]:
    """Try every subset of `visual_tokens` (M, d), M up to about 20.

    Returns:
        The first best subset of `num_keep` (at least 2) tokens, ascending, and its smallest pairwise distance.
    """
    distance = reference_distances(visual_tokens, metric).tolist()
    pairs_of = {kept: combinations(kept, 2) for kept in combinations(range(len(distance)), num_keep)}
    smallest = {kept: min(distance[i][j] for i, j in pairs) for kept, pairs in pairs_of.items()}
    best = max(smallest, key=smallest.__getitem__)
    return list(best), smallest[best]
