"""Greedy max-min selection (Algorithm 1 of the DivPrune paper): which visual tokens to keep.

image -> visual tokens -> **selection** -> prompt -> LLM.
"""

from __future__ import annotations

from math import inf
from numbers import Real
from typing import TYPE_CHECKING

from divprune.budget import Budget
from divprune.lazy_torch import torch, without_gradients
from divprune.selection.dense import dense_picks
from divprune.selection.distances import METRICS, Distances, full_precision
from divprune.selection.fused import MOST_TOKENS, fused_picks, runs_on
from divprune.selection.lazy import lazy_picks
from divprune.selection.matrix import matrix_picks
from divprune.selection.predicted import predicted_picks
from divprune.selection.result import PADDING, Selection

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

LAZY_FROM = {"cosine": 1700, "l1": 900, "l2": 900}
"""Sets of at least so many tokens avoid the distance matrix, by metric, unless many of them are kept."""
PREDICTED_FROM, PREDICTED_TO = 320, 2560
"""Numbers of tokens for which a prediction is worth its price on a CPU, unless many of them are kept."""
SPARING_SHARE = 0.4
MATRIX_BYTES = 256 * 2**20
"""Most memory that distance matrices may take: larger batches are cut, larger sets avoid the matrix."""
KERNEL_MATRIX_BYTES = 2**30
"""Most memory that the matrix of one set may take for the kernel on a GPU: 16,384 tokens in float32."""


@without_gradients
def select(
    visual_tokens: Tensor,
    *,
    num_keep: int | None = None,
    keep_ratio: float | None = None,
    metric: str = "cosine",
    min_distance: float | None = None,
    valid_mask: Tensor | None = None,
) -> Selection:
    """Pick the visual tokens that differ most from each other.

    Algorithm 1 of the paper: the first pick is the token whose nearest other token is farthest; each next one is the
    token that is farthest from its nearest kept token. Ties go to the lowest index, a kept token is never picked again,
    and a zero vector is at cosine distance 1 from everything. Greedy: at least half of the optimum in chordal distance.

    Args:
        visual_tokens: (M, d) or (B, M, d), floating point of any precision; half types are computed in float32.
        num_keep: How many to keep, between 1 and M. Exactly one of `num_keep` and `keep_ratio` is given.
        keep_ratio: Share to keep, in (0, 1]: max(1, round(keep_ratio * M)); of the valid tokens of each row, if masked.
        metric: "cosine" (Eq. 4 of the paper), "l1" or "l2" (its ablation).
        min_distance: Stop before the first pick that is nearer than this to an earlier one; fewer tokens are returned.
        valid_mask: (B, M) bool (or (M,)), False at padding; every row needs a valid token.

    Returns:
        The kept tokens on the device of `visual_tokens`; nested in `num_keep`, the same for the same input.

    Raises:
        ValueError: Wrong shape, no tokens, NaN or infinity, unknown metric, or a count out of range.
        TypeError: `visual_tokens` is not a floating-point tensor, or an argument has the wrong type.
    """
    check_tokens(visual_tokens)
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(map(repr, METRICS))}, got {metric!r}")
    stop = _checked_distance(min_distance)
    batched = visual_tokens.ndim == 3
    tokens = visual_tokens if batched else visual_tokens.unsqueeze(0)
    mask = _checked_mask(valid_mask, visual_tokens)
    counts = _counts(tokens, keep_ratio, num_keep, mask)
    with full_precision(tokens.device):
        order, distance = _picks(tokens, metric, counts, mask, stop)
    if stop == -inf and min(counts) == max(counts):
        return _whole(order, distance, counts, batched)
    selection = _trimmed(order, distance, torch.tensor(counts, device=tokens.device), stop)
    return selection if batched else selection.row(0)


def _picks(tokens: Tensor, metric: str, counts: list[int], mask: Tensor | None, stop: float) -> tuple[Tensor, Tensor]:
    """Return picks and distances (B, max(counts)), by whichever way is cheaper; what is past a count means nothing."""
    most, total = max(counts), tokens.shape[1]
    matrix_bytes = total**2 * (8 if tokens.dtype == torch.float64 else 4)
    has_kernel = total <= MOST_TOKENS and matrix_bytes <= KERNEL_MATRIX_BYTES and runs_on(tokens.device)
    on_cpu = tokens.device.type == "cpu"
    is_sparing = on_cpu and most <= SPARING_SHARE * total
    fits = matrix_bytes <= MATRIX_BYTES
    if is_sparing and fits and metric == "cosine" and PREDICTED_FROM <= total < PREDICTED_TO:
        return _one_by_one(_predicted, tokens, metric, counts, mask, stop)
    if not has_kernel and (not fits or (is_sparing and total >= LAZY_FROM[metric])):
        return _one_by_one(lazy_picks, tokens, metric, counts, mask, stop)
    if on_cpu and not has_kernel:
        return _one_by_one(matrix_picks, tokens, metric, counts, mask, stop)
    if mask is not None:
        # Padding may hold anything, NaN included.
        tokens = tokens.masked_fill(~mask.unsqueeze(-1), 0.0)
    size = max(1, MATRIX_BYTES // matrix_bytes)
    found = []
    for start in range(0, len(tokens), size):
        rows = slice(start, start + size)
        distances, valid = Distances(tokens[rows], metric), None if mask is None else mask[rows]
        if has_kernel:
            found.append(fused_picks(distances, most, valid, counts[rows], None if stop == -inf else stop))
        else:
            found.append(dense_picks(distances, most, valid))
    return torch.cat([picks for picks, _ in found]), torch.cat([distance for _, distance in found])


def _predicted(distances: Distances, num_keep: int, stop: float) -> tuple[list[int], list[float]]:
    """Return picks and distances of one set; where they cannot be predicted, by the way of its size."""
    found = predicted_picks(distances, num_keep, stop)
    if found is not None:
        return found
    if len(distances) >= LAZY_FROM[distances.metric]:
        return lazy_picks(distances, num_keep, stop)
    return matrix_picks(distances, num_keep, stop)


def _one_by_one(
    pick: Callable[[Distances, int, float], tuple[list[int], list[float]]],
    tokens: Tensor,
    metric: str,
    counts: list[int],
    mask: Tensor | None,
    stop: float,
) -> tuple[Tensor, Tensor]:
    """Return picks and distances (B, max(counts)), one set after the other."""
    most, order, distance = max(counts), [], []
    for row, count in enumerate(counts):
        valid = None if mask is None else mask[row].nonzero().squeeze(1)
        subset = tokens[row] if valid is None else tokens[row].index_select(0, valid)
        picks, when_chosen = pick(Distances(subset, metric), count, stop)
        missing = most - len(picks)
        order.append((picks if valid is None else valid[picks].tolist()) + [0] * missing)
        # A row that stopped early ends below every `min_distance`.
        distance.append(when_chosen + [-inf] * missing)
    dtype = torch.promote_types(tokens.dtype, torch.float32)
    found = torch.tensor(order), torch.tensor(distance, dtype=dtype)
    # Blocks of different shapes round differently; never let that show as a growing distance.
    return found[0].to(tokens.device), found[1].cummin(dim=1).values.to(tokens.device)


def _whole(order: Tensor, distance: Tensor, counts: list[int], batched: bool) -> Selection:
    """Return all picks (B, k): nothing to cut, and no waiting for a device to know so."""
    kept = order.sort(dim=1).values
    if not batched:
        return Selection(kept[0], order[0], distance[0], counts[0])
    return Selection(kept, order, distance, torch.full((len(counts),), counts[0], device=order.device))


def _trimmed(order: Tensor, distance: Tensor, counts: Tensor, min_distance: float) -> Selection:
    """Cut each row at its count and at `min_distance`, and pad."""
    within = torch.arange(order.shape[1], device=order.device) < counts.unsqueeze(1)
    within &= distance >= min_distance
    num_kept = within.sum(dim=1)
    most = int(num_kept.max())
    within, order, distance = within[:, :most], order[:, :most], distance[:, :most]
    last = torch.iinfo(torch.int64).max
    ascending = order.masked_fill(~within, last).sort(dim=1).values
    return Selection(
        kept_indices=ascending.masked_fill(ascending == last, PADDING),
        selection_order=order.masked_fill(~within, PADDING),
        distance_when_chosen=distance.masked_fill(~within, torch.nan),
        num_kept=num_kept,
    )


def check_tokens(visual_tokens: Tensor) -> None:
    """Refuse what is no (M, d) or (B, M, d) floating-point tensor."""
    if not isinstance(visual_tokens, torch.Tensor):
        raise TypeError(f"visual_tokens must be a torch.Tensor, got {type(visual_tokens).__name__}")
    if not visual_tokens.is_floating_point():
        raise TypeError(f"visual_tokens must be floating point, got {visual_tokens.dtype}; convert it with .float()")
    shape = tuple(visual_tokens.shape)
    if len(shape) not in (2, 3):
        raise ValueError(f"visual_tokens must have shape (M, d) or (B, M, d), got {shape}")
    if 0 in shape:
        raise ValueError(f"visual_tokens must hold at least one token and one feature, got shape {shape}")


def _checked_mask(valid_mask: Tensor | None, visual_tokens: Tensor) -> Tensor | None:
    """Return the mask as (B, M), None if it masks nothing."""
    if valid_mask is None:
        return None
    if not isinstance(valid_mask, torch.Tensor) or valid_mask.dtype != torch.bool:
        seen = valid_mask.dtype if isinstance(valid_mask, torch.Tensor) else type(valid_mask).__name__
        raise TypeError(f"valid_mask must be a bool tensor, got {seen}")
    if valid_mask.shape != visual_tokens.shape[:-1]:
        expected = tuple(visual_tokens.shape[:-1])
        raise ValueError(f"valid_mask must have shape {expected}, got {tuple(valid_mask.shape)}")
    mask = valid_mask.to(visual_tokens.device).reshape(-1, visual_tokens.shape[-2])
    if not bool(mask.any(dim=1).all()):
        raise ValueError("valid_mask must leave at least one token in every row")
    return None if bool(mask.all()) else mask


def _counts(tokens: Tensor, keep_ratio: float | None, num_keep: int | None, mask: Tensor | None) -> list[int]:
    """Return how many tokens each row keeps."""
    if keep_ratio is None and type(num_keep) is int and mask is None and 1 <= num_keep <= tokens.shape[1]:
        return [num_keep] * len(tokens)
    budget = Budget(keep_ratio, num_keep)
    totals = [tokens.shape[1]] * tokens.shape[0] if mask is None else mask.sum(dim=1).tolist()
    if budget.num_keep is not None and budget.num_keep > min(totals):
        raise ValueError(f"num_keep must be at most the number of visual tokens, {min(totals)}, got {budget.num_keep}")
    return [budget.count(total) for total in totals]


def _checked_distance(min_distance: object) -> float:
    """Return the distance at which to stop, -inf for never."""
    if min_distance is None:
        return -inf
    if isinstance(min_distance, bool) or not isinstance(min_distance, Real):
        raise TypeError(f"min_distance must be a number, got {min_distance!r}")
    distance = float(min_distance)
    if not distance >= 0:
        raise ValueError(f"min_distance must be at least 0, got {min_distance}")
    return distance
