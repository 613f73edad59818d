"""When two greedy selections count as equal: decision 9 of the architecture.

Products of different shapes differ in their last bits. So each pick must be a best one within 1e-6 in float64, given
the picks before it. Where all distances differ by more than that, this leaves exactly one answer.
"""

import torch
from torch import Tensor

from divprune.selection.reference import reference_distances

RESOLUTION = 1e-6


def wrong_pick(visual_tokens: Tensor, order: list[int], metric: str = "cosine") -> str | None:
    """Return what is wrong with the picks `order` from `visual_tokens` (M, d); None if they are right."""
    distance = reference_distances(visual_tokens, metric)
    scale = 1.0 if metric == "cosine" else max(1.0, float(distance.max()))
    if len(set(order)) != len(order):
        return "a token is picked twice"
    gap = distance.clone().fill_diagonal_(torch.inf).amin(dim=1)
    for step, pick in enumerate(order):
        seen, farthest = float(gap[pick]), float(gap.max())
        if seen < farthest - RESOLUTION * scale:
            return f"pick {step} is token {pick} at {seen}, the farthest is {int(gap.argmax())} at {farthest}"
        gap = distance[pick].clone() if step == 0 else torch.minimum(gap, distance[pick])
        gap[order[: step + 1]] = -torch.inf
    return None
