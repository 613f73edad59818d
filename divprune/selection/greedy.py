"""One greedy loop for every rule that picks the token of the largest gain, again and again.

A rule is an objective: it tells the gain of each token, given what it has been told was picked. Each pick updates a
running vector or matrix per set, so that a step costs O(M) or O(M^2), never a look at all earlier picks.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from divprune.lazy_torch import torch
from divprune.selection.fused_rules import RowRule, rule_picks

if TYPE_CHECKING:
    from torch import Tensor


class Objective(Protocol):
    """What is to be made large, over a batch of sets of M tokens."""

    def gains(self) -> Tensor:
        """Return (B, M) what each token would add now; values of tokens that are picked already mean nothing."""
        ...

    def add(self, picks: Tensor) -> None:
        """Take note of one pick (B,) int64 in each set."""
        ...


@runtime_checkable
class HasRowRule(Protocol):
    """An objective that one row a pick changes, which a GPU does in one launch."""

    def row_rule(self) -> RowRule:
        """Return the rule with its state before the first pick."""
        ...


def greedy_picks(objective: Objective, num_keep: int, first: Tensor | None = None) -> Tensor:
    """Return (B, num_keep) int64 distinct picks, in the order they are made; ties go to the lowest index.

    Args:
        objective: A fresh one; the loop uses it up.
        num_keep: Between 1 and M. The picks are nested in it.
        first: (B,) int64 first picks, by a rule of their own; by default those of the largest gain.

    Raises:
        ValueError: `num_keep` is out of range, or a gain is not finite.
    """
    gains = objective.gains()
    if not bool(torch.isfinite(gains).all()):
        raise ValueError("visual_tokens and their scores must be finite, got NaN or infinity")
    total = gains.shape[1]
    if not 1 <= num_keep <= total:
        raise ValueError(f"num_keep must be between 1 and the number of visual tokens, {total}, got {num_keep}")
    if isinstance(objective, HasRowRule) and (rule := objective.row_rule()).runs_fused():
        return rule_picks(rule, num_keep, first)
    return plain_picks(objective, num_keep, first)


def plain_picks(objective: Objective, num_keep: int, first: Tensor | None = None) -> Tensor:
    """Return what `greedy_picks` does, in plain torch and without looking at the arguments."""
    gains = objective.gains()
    taken = torch.zeros_like(gains, dtype=torch.bool)
    pick = gains.max(dim=1).indices if first is None else first
    picks = [pick]
    for _ in range(1, num_keep):
        taken.scatter_(1, pick.unsqueeze(1), True)
        objective.add(pick)
        pick = objective.gains().masked_fill(taken, -inf).max(dim=1).indices
        picks.append(pick)
    return torch.stack(picks, dim=1)
