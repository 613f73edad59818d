"""Clustering by density peaks: centres are dense, and far from anything denser."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from divprune.lazy_torch import torch
from divprune.selection.distances import full_precision

if TYPE_CHECKING:
    from torch import Tensor

NUM_NEIGHBOURS = 5
"""As is usual; the papers that use the rule for visual tokens do not all say."""
NO_CENTRE = -1


class Clusters(NamedTuple):
    """Tokens in clusters.

    Attributes:
        centres: (k,) int64 ascending, a token of each cluster.
        members: (n,) int64 the cluster of each token.
    """

    centres: Tensor
    members: Tensor


def clusters(tokens: Tensor, num_clusters: int, num_neighbours: int | None = None) -> Clusters:
    """Cluster tokens by density peaks with k-nearest-neighbour density.

    The density of a token is exp(-mean of the squared distances to the nearest tokens, itself among them), distances
    being Euclidean and divided by sqrt(d). A centre is one of the tokens with the largest density times distance to the
    nearest denser token; to the farthest token, for the densest of all. Every other token goes to its nearest centre.
    Ties go to the lowest index: of two tokens of equal density, it counts as the denser.

    M. Du, S. Ding, H. Jia, "Study on density peaks clustering based on k-nearest neighbors and principal component
    analysis", Knowledge-Based Systems 99, 2016; after A. Rodriguez, A. Laio, Science 344, 2014.

    Args:
        tokens: (n, d) floating point, taken in float32 at least.
        num_clusters: k, between 1 and n.
        num_neighbours: over how many distances the mean is taken, the token's own of 0 included, at least 1 (at most n
            count); by default as many as there are clusters, as in SparseVLM.
    """
    counts = torch.tensor([num_clusters], device=tokens.device)
    others = (num_clusters if num_neighbours is None else num_neighbours) - 1
    found = centres_of(tokens.unsqueeze(0), counts, others, counts_itself=True)[0]
    centres, members = found.unique(return_inverse=True)
    return Clusters(centres, members)


def centres_of(
    tokens: Tensor,
    num_clusters: Tensor,
    num_neighbours: int | Tensor = NUM_NEIGHBOURS,
    present: Tensor | None = None,
    counts_itself: bool = False,
) -> Tensor:
    """Cluster the tokens of several sets at once, such as the frames of a video, by the rule of `clusters`.

    Args:
        tokens: (B, n, d) floating point, taken in float32 at least.
        num_clusters: (B,) int64 clusters of each set, at most as many as it has tokens; a set of 0 clusters has none.
        num_neighbours: how many nearest others the density of a token is made of; (B,) int64 if it differs.
        present: (B, n) bool, which tokens belong to their set; all of them, if None.
        counts_itself: whether the mean of its density is also over the token's distance to itself, 0.

    Returns:
        (B, n) int64 the centre of each token, within its set, a centre its own; `NO_CENTRE` for tokens in no cluster.
    """
    if present is None:
        present = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    distance = _distances(tokens, present)
    order = _peak_order(distance, num_neighbours, present, counts_itself)
    is_centre = (_places(order) < num_clusters.to(order.device).unsqueeze(1)) & present
    nearest = distance.masked_fill(~is_centre.unsqueeze(1), torch.inf).min(dim=2).indices
    # A centre is its own cluster's, even where another centre is the same token again.
    own = torch.arange(tokens.shape[1], device=order.device).expand_as(order)
    clustered = present & is_centre.any(dim=1, keepdim=True)
    return torch.where(is_centre, own, nearest).masked_fill(~clustered, NO_CENTRE)


def densest(tokens: Tensor, num_neighbours: int, present: Tensor) -> Tensor:
    """Return (B, n) int64 tokens by falling density times distance, absent ones last; arguments as for `centres_of`."""
    return _peak_order(_distances(tokens, present), num_neighbours, present)


def _distances(tokens: Tensor, present: Tensor) -> Tensor:
    """(B, n, n) distances; infinite to tokens that are not present."""
    precise = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
    with full_precision(tokens.device):
        distance: Tensor = torch.cdist(precise, precise, compute_mode="donot_use_mm_for_euclid_dist")
    distance = distance / tokens.shape[-1] ** 0.5
    return distance.masked_fill_(~present.unsqueeze(1), torch.inf)


def _peak_order(distance: Tensor, num_neighbours: int | Tensor, present: Tensor, counts_itself: bool = False) -> Tensor:
    """(B, n) tokens by falling density times distance to the nearest denser one, those that are not present last."""
    density = _log_density(distance, num_neighbours, counts_itself).masked_fill(~present, -torch.inf)
    # In logarithms, since the densities of large hidden states are too small for a float.
    peak = density + _distance_to_denser(distance, density, present).log()
    order: Tensor = peak.masked_fill(~present, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    present_first = (~present).gather(1, order).sort(dim=1, stable=True).indices
    return order.gather(1, present_first)


def _log_density(distance: Tensor, num_neighbours: int | Tensor, counts_itself: bool) -> Tensor:
    """(B, n) logarithms of the densities of tokens with distances (B, n, n)."""
    counts = torch.as_tensor(num_neighbours, device=distance.device).expand(len(distance))
    others = min(int(counts.max()), distance.shape[-1] - 1)
    if others == 0:
        return distance.new_zeros(distance.shape[:2])
    apart = distance.square()
    apart.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    nearest = apart.topk(others, largest=False).values
    known = nearest.isfinite() & (torch.arange(others, device=counts.device) < counts.view(-1, 1, 1))
    return -nearest.masked_fill(~known, 0.0).sum(dim=-1) / (known.sum(dim=-1) + int(counts_itself)).clamp(min=1)


def _distance_to_denser(distance: Tensor, density: Tensor, present: Tensor) -> Tensor:
    """(B, n) distance to the nearest denser token; to the farthest that is present, for the densest."""
    place = _places(density.sort(dim=1, descending=True, stable=True).indices)
    denser = place.unsqueeze(1) < place.unsqueeze(2)
    nearest = distance.masked_fill(~denser, torch.inf).amin(dim=2)
    farthest = distance.masked_fill(~present.unsqueeze(1), -torch.inf).amax(dim=2)
    return torch.where(place == 0, farthest, nearest).clamp(min=0)


def _places(order: Tensor) -> Tensor:
    """(B, n) place of each token in the order (B, n)."""
    numbers = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, numbers)
