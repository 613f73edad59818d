"""Density-peak clustering with a bound on how far a member may be from its centre."""

from __future__ import annotations

from typing import TYPE_CHECKING

from divprune.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor

DENSITY_SCALE = 2.0


def distances_to_denser(distance: Tensor) -> Tensor:
    """Return (n,) the distance of each token to the nearest denser one; infinite for the densest.

    The density of a token is the sum over all of exp(-distance / 2); of two tokens of equal density, the lower index
    counts as the denser.

    Args:
        distance: (n, n) distances, float32 at least.
    """
    place = _places_by_density(distance)
    denser = place.unsqueeze(0) < place.unsqueeze(1)
    return distance.masked_fill(~denser, torch.inf).amin(dim=1)


def bounded_centres(distance: Tensor, cutoff: float) -> Tensor:
    """Find the centres of clusters whose members are at most `cutoff` from them.

    A token is a centre if every denser one is farther than `cutoff`; what then is within `cutoff` of a centre is
    settled, and the same goes for the rest, until nothing is left. The loop is over these rounds, of which each settles
    at least the densest token that is left.

    Args:
        distance: (n, n) distances, see `distances_to_denser`.
        cutoff: at least 0.

    Returns:
        (n,) bool, True at centres.
    """
    place = _places_by_density(distance)
    denser = place.unsqueeze(0) < place.unsqueeze(1)
    near = distance <= cutoff
    centres = torch.zeros(len(distance), dtype=torch.bool, device=distance.device)
    left = ~centres
    while bool(left.any()):
        centres |= left & ~(near & denser & left).any(dim=1)
        left = ~centres & ~(near & centres).any(dim=1)
    return centres


def _places_by_density(distance: Tensor) -> Tensor:
    """(n,) place of each token by falling density."""
    order = (-distance / DENSITY_SCALE).exp().sum(dim=1, dtype=torch.float64).sort(descending=True, stable=True).indices
    return torch.empty_like(order).index_copy(0, order, torch.arange(len(order), device=order.device))
