"""Algorithm 1 of the paper in a few obvious lines: what the tests trust. Slow, one set at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from divprune.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor


def reference_select(visual_tokens: Tensor, num_keep: int, metric: str = "cosine") -> Tensor:
    """Return the greedy max-min picks of `visual_tokens` (M, d) as (num_keep,) int64, in the order they are picked."""
    distance = reference_distances(visual_tokens, metric)
    nearest_other = distance.clone().fill_diagonal_(torch.inf).amin(dim=1)
    # The token whose nearest neighbour is farthest; max() of a list returns the first of equals.
    picks = [max(range(len(distance)), key=nearest_other.tolist().__getitem__)]
    while len(picks) < num_keep:
        min_distance_to_kept = distance[picks].amin(dim=0).tolist()
        left = [token for token in range(len(distance)) if token not in picks]
        picks.append(max(left, key=min_distance_to_kept.__getitem__))
    return torch.tensor(picks)


def reference_distances(visual_tokens: Tensor, metric: str = "cosine") -> Tensor:
    """Return all distances (M, M) between the rows of `visual_tokens` (M, d), in float64."""
    rows = visual_tokens.double()
    if metric != "cosine":
        return torch.cdist(rows, rows, p={"l1": 1.0, "l2": 2.0}[metric], compute_mode="donot_use_mm_for_euclid_dist")
    length = rows.norm(dim=1, keepdim=True)
    unit = torch.where(length > 0, rows / length, 0.0)
    # Copies of a token tie: the product's last bits depend on where a row stands.
    return (1 - unit @ unit.T).round(decimals=12)
