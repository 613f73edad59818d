"""How good a choice is: its smallest distance, next to what no choice of as many tokens can exceed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from divprune.lazy_torch import torch, without_gradients
from divprune.selection.bounds import cover_bound, linkage_bound, spread_bound
from divprune.selection.distances import METRICS, Distances, full_precision
from divprune.selection.max_min import MATRIX_BYTES, check_tokens, select
from divprune.selection.result import Selection

if TYPE_CHECKING:
    from torch import Tensor

Argument = Literal["greedy cover", "complete linkage", "spread"]


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a choice of tokens is worth.

    Attributes:
        max_min_distance: Smallest distance between two of the chosen tokens.
        bound: No choice of as many tokens of the set has a larger one (Eq. 3 of the DivPrune paper).
        argument: What the bound rests on: "greedy cover" or "complete linkage" (`num_keep` - 1 groups of tokens, of
            which two chosen ones share one) or "spread" (the mean distance of unit vectors).
    """

    max_min_distance: float
    bound: float
    argument: Argument

    @property
    def share_of_optimum(self) -> float:
        """At least this fraction of the best possible max-min distance is reached; 1.0 proves the choice optimal."""
        return min(1.0, self.max_min_distance / self.bound) if self.bound > 0 else 1.0


@without_gradients
def certificate(selection: Selection | Tensor, visual_tokens: Tensor, metric: str = "cosine") -> Certificate:
    """Bound the best possible max-min distance of a set of tokens, and say how near a choice comes to it.

    The bound is computed from the set. For non-zero tokens it is at most 4 g - 2 g^2 with g the greedy cosine distance,
    less than the factor 4 that greedy picks are known for, and usually far less. It is exact for 2 tokens and for all.
    Costs one selection and one distance matrix; sets whose matrix would take more than 256 MiB do without it, at a
    looser bound. Rounding moves it by about 1e-6.

    Args:
        selection: A `Selection` of one set, or the (k,) indices of k >= 2 distinct tokens, chosen in whatever way.
        visual_tokens: (M, d) floating point, the set they were chosen from.
        metric: "cosine", "l1" or "l2": the distance that is meant.

    Returns:
        The distance reached, the bound, and which argument gave it.

    Raises:
        ValueError: Fewer than two tokens, a batch, indices that do not fit the tokens, NaN or infinity, unknown metric.
        TypeError: An argument has the wrong type.
    """
    check_tokens(visual_tokens)
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(map(repr, METRICS))}, got {metric!r}")
    kept = _checked_indices(selection, visual_tokens)
    with full_precision(visual_tokens.device):
        distances = Distances(visual_tokens, metric)
        among = distances.block(kept, kept).fill_diagonal_(torch.inf)
        bounds = _bounds(distances, visual_tokens, len(kept))
    argument = min(bounds, key=bounds.__getitem__)
    return Certificate(float(among.min()), bounds[argument], argument)


def _bounds(distances: Distances, visual_tokens: Tensor, num_keep: int) -> dict[Argument, float]:
    greedy = select(visual_tokens, num_keep=num_keep - 1, metric=distances.metric).selection_order
    bounds: dict[Argument, float] = {"greedy cover": cover_bound(distances, greedy)}
    if len(distances) ** 2 * distances.tokens.element_size() <= MATRIX_BYTES:
        # On the CPU: merging waits for every step.
        bounds["complete linkage"] = linkage_bound(distances.matrix().cpu(), num_keep)
    if distances.metric == "cosine":
        bounds["spread"] = spread_bound(distances, num_keep)
    return bounds


def _checked_indices(selection: Selection | Tensor, visual_tokens: Tensor) -> Tensor:
    """Return the (k,) chosen indices."""
    if visual_tokens.ndim != 2:
        raise ValueError(
            f"visual_tokens must have shape (M, d), got {tuple(visual_tokens.shape)}; of a batch, give one set and "
            "selection.row(index)"
        )
    kept = selection.kept_indices if isinstance(selection, Selection) else selection
    if not isinstance(kept, torch.Tensor) or kept.is_floating_point() or kept.dtype == torch.bool:
        seen = kept.dtype if isinstance(kept, torch.Tensor) else type(kept).__name__
        raise TypeError(f"selection must be a Selection or a tensor of indices, got {seen}")
    if kept.ndim != 1 or len(kept) < 2:
        raise ValueError(f"selection must hold the indices (k,) of k >= 2 tokens, got shape {tuple(kept.shape)}")
    total = len(visual_tokens)
    if int(kept.min()) < 0 or int(kept.max()) >= total or len(kept.unique()) < len(kept):
        raise ValueError(f"selection must hold distinct indices below the number of visual tokens, {total}")
    return kept.to(visual_tokens.device)
