"""Greedy max-min selection from the whole distance matrix, batched: the fast way for sets of some hundred tokens."""

from math import inf

import torch
from torch import Tensor

from divprune.selection.distances import Distances


def dense_picks(distances: Distances, num_keep: int, valid_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the picks of each set of a batch and the distance that each had when it was chosen.

    Args:
        distances: Of B sets of M tokens.
        num_keep: Number of picks of every set; sets with fewer valid tokens go on with arbitrary ones.
        valid_mask: (B, M) bool, False at padding; None if every token is valid.

    Returns:
        (B, num_keep) int64 picks in order, and (B, num_keep) distances; the first of each set is inf.
    """
    matrix = distances.block()  # (B, M, M)
    batch_size, total, _ = matrix.shape
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    diagonal.fill_(inf)
    if valid_mask is not None:
        matrix.masked_fill_(~valid_mask.unsqueeze(1), inf)
    # Both triangles, so that two tokens that are each other's nearest neighbour tie exactly.
    nearest = torch.minimum(matrix.amin(dim=-1), matrix.amin(dim=-2))
    # A kept token meets itself at -inf, and so never is the farthest again.
    diagonal.fill_(-inf)
    if valid_mask is not None:
        nearest.masked_fill_(~valid_mask, -inf)
        matrix.masked_fill_(~valid_mask.unsqueeze(1), -inf)
    rows = matrix.view(batch_size * total, total)
    first_row = torch.arange(batch_size, device=matrix.device) * total
    picks = torch.empty(num_keep, batch_size, dtype=torch.int64, device=matrix.device)
    when_chosen = torch.empty(num_keep, batch_size, dtype=matrix.dtype, device=matrix.device)
    torch.argmax(nearest, dim=1, out=picks[0])
    when_chosen[0] = inf
    nearest.fill_(inf)
    met = torch.empty_like(nearest)
    for step in range(1, num_keep):
        torch.index_select(rows, 0, picks[step - 1] + first_row, out=met)
        torch.minimum(nearest, met, out=nearest)
        torch.argmax(nearest, dim=1, out=picks[step])
        torch.amax(nearest, dim=1, out=when_chosen[step])
    return picks.T.contiguous(), when_chosen.T.contiguous()
