"""Similarities and scales that the greedy rules share."""

import torch
from torch import Tensor

from divprune.selection.distances import Distances, full_precision


def cosine_similarities(tokens: Tensor) -> Tensor:
    """Return (B, M, M) cosine similarities of (B, M, d) tokens, in float32 at least; zero vectors are similar to none.

    Raises:
        ValueError: A token holds NaN or infinity.
    """
    with full_precision(tokens.device):
        return 1 - Distances(tokens, "cosine").matrix()


def unit_range(scores: Tensor) -> Tensor:
    """Return scores (..., M) shifted and scaled to [0, 1]; zeros, if all are equal."""
    low, high = scores.amin(dim=-1, keepdim=True), scores.amax(dim=-1, keepdim=True)
    return torch.where(high > low, (scores - low) / (high - low), 0.0)


def unit_rows(tokens: Tensor) -> Tensor:
    """Return tokens (..., d) scaled to length 1 in float32 at least; zero vectors stay zero."""
    precise = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
    length = torch.linalg.vector_norm(precise, dim=-1, keepdim=True)
    return torch.where(length > 0, precise / length, 0.0)
