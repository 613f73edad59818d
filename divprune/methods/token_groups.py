"""Tokens in groups, of which each becomes one merged token: how methods merge step by step.

A token belongs to one group or to none, so that M anchors and M weights say everything; `TokenGroups.merged` turns them
into the rows that the integration applies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from divprune.lazy_torch import torch
from divprune.methods.merging import Merged
from divprune.selection.distances import full_precision, unit_rows

if TYPE_CHECKING:
    from torch import Tensor

DROPPED = -1


@dataclass(frozen=True, slots=True)
class TokenGroups:
    """Groups of M tokens.

    Attributes:
        anchor_of: (M,) int64 the token in whose place the token's group stands, itself one of the group; `DROPPED` for
            tokens in no group.
        weights: (M,) float64 how much of the token is in the merged one.
    """

    anchor_of: Tensor
    weights: Tensor

    @classmethod
    def around(cls, anchor_of: Tensor, anchor_weight: float = 0.0) -> Self:
        """Return groups whose merged token is w anchor + (1 - w) mean of its n other members, w = max(w0, 1 / (n + 1)).

        Args:
            anchor_of: (M,) int64, see `TokenGroups`; an anchor is its own.
            anchor_weight: w0, in [0, 1]; 0 for the mean of all members.
        """
        kept = anchor_of != DROPPED
        sizes = torch.zeros(len(anchor_of), dtype=torch.float64, device=anchor_of.device)
        sizes.index_add_(0, anchor_of[kept], torch.ones_like(sizes[kept]))
        size = sizes[anchor_of.clamp(min=0)].clamp(min=1)
        own = (1 / size).clamp(min=anchor_weight)
        is_anchor = anchor_of == torch.arange(len(anchor_of), device=anchor_of.device)
        weights = torch.where(is_anchor, own, (1 - own) / (size - 1).clamp(min=1))
        # The mean is written as such, so that it is exact where the sizes are.
        weights = torch.where(own > 1 / size, weights, 1 / size)
        return cls(anchor_of, weights.masked_fill(~kept, 0.0))

    def then(self, later: TokenGroups) -> TokenGroups:
        """Return what comes of grouping the merged tokens again; `later` speaks of them by their anchors."""
        anchors = self.anchor_of.clamp(min=0)
        kept = self.anchor_of != DROPPED
        return TokenGroups(
            torch.where(kept, later.anchor_of[anchors], DROPPED), self.weights * later.weights[anchors] * kept
        )

    def values(self, tokens: Tensor) -> Tensor:
        """Return (M, d) what each anchor becomes of `tokens` (M, d), in their dtype; zeros at all other tokens."""
        kept = self.anchor_of != DROPPED
        weighted = tokens[kept].double() * self.weights[kept].to(tokens.device).unsqueeze(1)
        sums = torch.zeros_like(tokens, dtype=torch.float64).index_add_(0, self.anchor_of[kept], weighted)
        return sums.to(tokens.dtype)

    def merged(self) -> Merged:
        """Return the groups as rows of weights (k, M), by ascending anchors."""
        kept = self.anchor_of != DROPPED
        anchors, rows = self.anchor_of[kept].unique(return_inverse=True)
        weights = torch.zeros(len(anchors), len(kept), device=kept.device)
        weights[rows, kept.nonzero().squeeze(1)] = self.weights[kept].float()
        return Merged(weights, anchors)


def nearest_kept(tokens: Tensor, kept: Tensor) -> Tensor:
    """Return (M,) the most similar of the kept tokens (M,) bool, of (M, d); a kept one is its own."""
    unit, numbers = unit_rows(tokens), kept.nonzero().squeeze(1)
    with full_precision(tokens.device):
        nearest = numbers[(unit @ unit[numbers].mT).max(dim=1).indices]
    return torch.where(kept, torch.arange(len(kept), device=kept.device), nearest)
