"""Sharing a number of tokens among groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from divprune.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor


def proportional_shares(total: int, sizes: Tensor) -> Tensor:
    """Share `total` among groups in proportion to their sizes (G,) int64, of at least `total` together.

    Each gets its part rounded down; what remains goes one each to the largest fractions, of equal ones to the first.
    No share is larger than its size.

    Returns:
        (G,) int64 shares, `total` together.
    """
    parts, everything = sizes * total, max(1, int(sizes.sum()))
    shares, rest = parts // everything, parts % everything
    favoured = rest.sort(descending=True, stable=True).indices[: total - int(shares.sum())]
    return shares.index_add(0, favoured, torch.ones_like(favoured))


def weighted_shares(total: int, weights: Tensor, sizes: Tensor) -> Tensor:
    """Share `total` among groups in proportion to their weights, none more than its size.

    Each gets its part rounded down, at most its size; what remains goes one each to the largest weights that have room,
    of equal ones to the first, round by round.

    Args:
        total: at most the sum of the sizes.
        weights: (G,) at least 0; all equal if their sum is 0.
        sizes: (G,) int64.

    Returns:
        (G,) int64 shares, `total` together.

    Raises:
        ValueError: A weight is not finite.
    """
    if not bool(torch.isfinite(weights).all()):
        raise ValueError("the scores of visual_tokens must be finite, got NaN or infinity")
    weights = weights.double()
    if not float(weights.sum()) > 0:
        weights = torch.ones_like(weights)
    # A part that rounding has put a little below a whole number is that number.
    shares = (total * weights / weights.sum() + 1e-9).floor().long().minimum(sizes)
    order = weights.sort(descending=True, stable=True).indices
    while (left := total - int(shares.sum())) > 0:
        favoured = order[(shares < sizes)[order]][:left]
        shares = shares.index_add(0, favoured, torch.ones_like(favoured))
    return shares
