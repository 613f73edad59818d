"""Greedy max-min selection from the whole distance matrix, for a batch of sets at once.

The way for small sets, for batches of them, and for GPUs, where the matrix is cheap and waiting for each pick is not:
nothing here reads a value back from the device.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from divprune.lazy_torch import torch
from divprune.selection.distances import Distances

if TYPE_CHECKING:
    from torch import Tensor


def dense_picks(distances: Distances, num_keep: int, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Pick from each set of a batch, as Algorithm 1 of the paper does.

    Args:
        distances: Of the batch (B, M, d).
        num_keep: Number of picks, between 1 and M. Picks past the number of valid tokens of a row mean nothing.
        valid: (B, M) bool, the tokens that exist; by default all.

    Returns:
        (B, num_keep) int64 picks, and (B, num_keep) distances of each to its nearest earlier pick: inf for the first.
    """
    matrix = distances.matrix()
    nearest = nearest_of(matrix, valid)
    near = nearest == 0
    if bool(near.any()):
        matrix = with_tied_copies(matrix, distances.tokens, near)
        nearest = nearest_of(matrix, valid)
    seed = nearest.argmax(dim=1)
    # A pick is at -inf from itself and thereby never the farthest again.
    matrix.diagonal(dim1=1, dim2=2).fill_(-inf)
    batch, total = matrix.shape[:2]
    min_distance_to_kept = matrix.new_full((batch, total), inf)
    if valid is not None:
        min_distance_to_kept.masked_fill_(~valid, -inf)
    picks = seed.new_empty((num_keep, batch))
    when_chosen = matrix.new_full((num_keep, batch), inf)
    picks[0] = seed
    rows = matrix.view(batch * total, total)
    first_row = torch.arange(batch, device=rows.device) * total
    for step in range(1, num_keep):
        torch.minimum(min_distance_to_kept, rows[first_row + picks[step - 1]], out=min_distance_to_kept)
        # The first of equals.
        torch.max(min_distance_to_kept, dim=1, out=(when_chosen[step], picks[step]))
    return picks.T, when_chosen.T


def nearest_of(matrix: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return (B, M) how far the nearest valid neighbour of each valid token is, -inf for the others.

    Sets the diagonal of `matrix` to inf.
    """
    matrix.diagonal(dim1=1, dim2=2).fill_(inf)
    met = matrix if valid is None else matrix.masked_fill(~(valid.unsqueeze(1) & valid.unsqueeze(2)), inf)
    # By rows and by columns, so that two tokens that are each other's nearest tie to the last bit.
    nearest = torch.minimum(met.amin(dim=2), met.amin(dim=1))
    return nearest if valid is None else nearest.masked_fill_(~valid, -inf)


def with_tied_copies(matrix: Tensor, tokens: Tensor, near: Tensor) -> Tensor:
    """Give each copy of a token the distances (B, M, M) of the first: a product's last bits depend on a row's place.

    Args:
        matrix: (B, M, M).
        tokens: (B, M, d).
        near: (B, M) bool, the tokens that are at distance 0 from another and may be copies.
    """
    matrix.diagonal(dim1=1, dim2=2).fill_(0.0)
    first = torch.arange(matrix.shape[1], device=matrix.device).repeat(len(matrix), 1)
    for row in near.any(dim=1).nonzero().squeeze(1).tolist():
        suspects = near[row].nonzero().squeeze(1)
        _, group = tokens[row, suspects].unique(dim=0, return_inverse=True)
        lowest = suspects.new_full((len(suspects),), len(near[row])).scatter_reduce(0, group, suspects, "amin")
        first[row, suspects] = lowest[group]
    rows = matrix.gather(1, first.unsqueeze(2).expand_as(matrix))
    return rows.gather(2, first.unsqueeze(1).expand_as(matrix))
