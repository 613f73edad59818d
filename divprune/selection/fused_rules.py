"""Greedy rules whose state is one number a token, changed by one row a pick: on a GPU one kernel launch for all picks.

Coverage and determinants are none: their picks change what a matrix of numbers says, too much for one multiprocessor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from divprune.lazy_torch import torch
from divprune.selection.fused import MOST_TOKENS, compile_options, runs_on

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RowRule:
    """What a pick of token i does to the state, and what gains follow from it, in sets of M tokens.

    Attributes:
        kind: "largest": state_j is the largest matrix_ij of the picks, the gain base_j - weight * state_j. "smallest":
            the smallest, which is the gain. "suppress": state_j = max(0, state_j - matrix_ij * state_i), the gain the
            state, or base_j where that is 0.
        matrix: (B, M, M) rows of the picks.
        state: (B, M) before the first pick.
        base: (B, M), see `kind`.
        weight: see `kind`.
    """

    kind: Literal["largest", "smallest", "suppress"]
    matrix: Tensor
    state: Tensor
    base: Tensor
    weight: float = 1.0

    def runs_fused(self) -> bool:
        """Return whether `rule_picks` is to be used for it."""
        return self.state.shape[1] <= MOST_TOKENS and runs_on(self.state.device, difference_to_plain_rules)


def rule_picks(rule: RowRule, num_keep: int, first: Tensor | None = None) -> Tensor:
    """Return (B, num_keep) int64 distinct picks, those of `greedy.greedy_picks`, without waiting for the device.

    Args:
        rule: M at most `fused.MOST_TOKENS`.
        num_keep: Between 1 and M.
        first: (B,) int64 first picks; by default those of the largest gain.
    """
    from divprune.selection.fused_kernel import row_rule_kernel

    batch, total = rule.state.shape
    picks = torch.empty(batch, num_keep, dtype=torch.int64, device=rule.state.device)
    options = compile_options(total)
    names = ("BLOCK", "num_warps", "enable_fp_fusion")
    with torch.cuda.device_of(picks):
        row_rule_kernel[(batch,)](
            rule.matrix.contiguous(),
            rule.state.contiguous(),
            rule.base.contiguous(),
            # In the tokens' own precision, which a number given to a kernel is not.
            rule.state.new_full((1,), rule.weight),
            None if first is None else first.contiguous(),
            picks,
            total,
            num_keep,
            KIND=rule.kind,
            **{name: options[name] for name in names},
        )
    return picks


def difference_to_plain_rules(device: torch.device) -> str | None:
    """Return how the kernel's picks from a small batch differ from plain torch's on the same device; None if not."""
    from divprune.selection.greedy import plain_picks
    from divprune.selection.objectives import Closeness, Dispersion, Relevance, Suppression

    draw = torch.Generator().manual_seed(0)
    # Numbers that products and differences do not round, so that ties are ties however they are computed.
    similarity, scores = (torch.randint(9, size, generator=draw).to(device) / 8 for size in ((2, 45, 45), (2, 45)))
    for make in (
        lambda: Relevance(scores, similarity, 0.5),
        lambda: Suppression(scores, similarity),
        lambda: Dispersion(similarity),
        lambda: Closeness(similarity),
    ):
        if not torch.equal(rule_picks(make().row_rule(), 33), plain_picks(make(), 33)):
            return f"other picks by {type(make()).__name__}"
    return None
