"""Clustering by density peaks: centres are dense, and far from anything denser."""

from typing import NamedTuple

import torch
from torch import Tensor

from divprune.selection.distances import full_precision


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
    precise = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
    with full_precision(tokens.device):
        distance = torch.cdist(precise, precise, compute_mode="donot_use_mm_for_euclid_dist") / tokens.shape[-1] ** 0.5
    density = _log_density(distance, num_clusters if num_neighbours is None else num_neighbours)
    # In logarithms, since the densities of large hidden states are too small for a float.
    peak = density + _distance_to_denser(distance, density).log()
    centres = peak.sort(descending=True, stable=True).indices[:num_clusters].sort().values
    members = distance[:, centres].min(dim=1).indices
    # A centre is its own cluster's, even where another centre is the same token again.
    members[centres] = torch.arange(num_clusters, device=members.device)
    return Clusters(centres, members)


def _log_density(distance: Tensor, num_neighbours: int) -> Tensor:
    """(n,) logarithms of the densities of tokens with distances (n, n)."""
    nearest = distance.square().topk(min(num_neighbours, len(distance)), largest=False)
    return -nearest.values.mean(dim=1)


def _distance_to_denser(distance: Tensor, density: Tensor) -> Tensor:
    """(n,) distance to the nearest denser token; to the farthest, for the densest."""
    order = density.sort(descending=True, stable=True).indices
    place = torch.empty_like(order).index_copy(0, order, torch.arange(len(order), device=order.device))
    denser = place.unsqueeze(0) < place.unsqueeze(1)
    nearest = distance.masked_fill(~denser, torch.inf).amin(dim=1)
    return torch.where(place == 0, distance.amax(dim=1), nearest)
