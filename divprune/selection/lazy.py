"""Greedy max-min selection for a fraction of the price of the distance matrix, with the same picks.

For sets of about a thousand tokens and more. A token's distance to its nearest kept token only shrinks, so among the
candidates that are farthest now, picks are final as long as they beat the best token outside: one small block of
distances between the candidates yields many picks, and all tokens catch up with them in one product. Each kept token's
row is computed once. Memory is O(M * block), not O(M^2).
"""

from math import inf

import torch
from torch import Tensor

from divprune.selection.distances import Distances
from divprune.selection.seed import find_seed

ROUNDS_PER_SIZE = 8
LARGEST_BLOCK = 1024


def lazy_picks(
    distances: Distances, num_keep: int, min_distance: float = -inf, num_candidates: int | None = None
) -> tuple[list[int], list[float]]:
    """Return the picks of one set and the distance that each had when it was chosen.

    Args:
        distances: Of M tokens.
        num_keep: Number of picks, between 1 and M.
        min_distance: Stop before the first pick that is nearer than this to an earlier one.
        num_candidates: How many candidates race at first; by default it grows with M.
    """
    picks, when_chosen = [find_seed(distances)], [inf]
    nearest = torch.full_like(distances.tokens[:, 0], inf)
    new = picks
    size = num_candidates or min(128, max(32, len(distances) // 48))
    rounds = 0
    while new and len(picks) < num_keep:
        _catch_up(distances, nearest, new)
        new, values = _race(distances, nearest, size, num_keep - len(picks), min_distance)
        picks, when_chosen = picks + new, when_chosen + values
        rounds += 1
        if rounds % ROUNDS_PER_SIZE == 0:
            size = min(2 * size, LARGEST_BLOCK)
    return picks, when_chosen


def _catch_up(distances: Distances, nearest: Tensor, new: list[int]) -> None:
    """Let every token meet the latest picks, which leave the race."""
    index = torch.tensor(new, device=nearest.device)
    for rows in index.split(LARGEST_BLOCK):
        torch.minimum(nearest, distances.block(rows).amin(dim=0), out=nearest)
    nearest[index] = -inf


def _race(
    distances: Distances, nearest: Tensor, size: int, most: int, min_distance: float
) -> tuple[list[int], list[float]]:
    """Pick among the `size` farthest tokens while they beat everything outside; at least one pick, if any is allowed."""
    ranked = nearest.sort(descending=True, stable=True)
    outside = (float(ranked.values[size]), int(ranked.indices[size])) if size < len(nearest) else (-inf, 0)
    candidates = ranked.indices[:size].sort().values
    tokens, left = candidates.tolist(), nearest[candidates].cpu()
    block = distances.block(candidates, candidates).cpu().fill_diagonal_(-inf)
    picks: list[int] = []
    values: list[float] = []
    while len(picks) < most:
        slot = int(left.argmax())
        value = float(left[slot])
        # Among equals the lowest index wins, inside or outside.
        loses = value < outside[0] or (value == outside[0] and tokens[slot] > outside[1])
        if loses or value == -inf or value < min_distance:
            break
        picks.append(tokens[slot])
        values.append(value)
        torch.minimum(left, block[slot], out=left)
    return picks, values
