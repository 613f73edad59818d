"""VScan: local details by an early vision layer, the whole by a late one, the rest merged in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.lazy_torch import torch
from divprune.methods.base import Fidelity, Paper, checked_layer
from divprune.methods.grids import given_pieces, windows_on_grid
from divprune.methods.item_context import ItemContext, Need, given
from divprune.methods.merging import Merged
from divprune.methods.scores import importance, ranked
from divprune.methods.shares import weighted_shares
from divprune.methods.token_groups import TokenGroups, nearest_kept
from divprune.methods.two_stages import TwoStages

if TYPE_CHECKING:
    from torch import Tensor

WINDOW_SIDE = 6
"""Tokens along each side."""


@dataclass(frozen=True)
class VScan(TwoStages):
    """Half of the tokens by an early vision layer, window by window, half by a late one; the rest is merged into them.

    Half of k tokens, rounded down, have the highest CLS attention of an early layer of the vision encoder in their
    window of 6 x 6 tokens, equally many from each; the others have the highest of the last layer but one among the
    rest. Every other token joins the most similar one that is kept (cosine), which becomes the mean of them all.

    With a `layer` (the paper's is 16, of 32) that is the first stage, which has 1.5 times the tokens that the caller
    asks for; from that layer on a third of them stay, those of the highest attention from the prompt's last token in
    the layer before. Choices where the paper leaves one: what does not divide goes one each to the first windows, and
    what a small window at the edge cannot give, to those that have room; tokens that lie on no grid are one window;
    tokens are compared and merged after the projector.

    C. Zhang, K. Ma, T. Fang, W. Yu, H. Zhang, Z. Zhang, Y. Xie, K. Sycara, H. Mi, D. Yu, "VScan: Rethinking Visual
    Token Reduction for Efficient Large Vision-Language Models", TMLR 2026, https://arxiv.org/abs/2505.22654

    Attributes:
        layer: decoder layer of the second stage; 0 for none.
        early_layer: the early layer, counted from 0; the paper's is 6 of 24.
    """

    name: ClassVar[str] = "vscan"
    paper: ClassVar[Paper | None] = Paper(
        title="VScan: Rethinking Visual Token Reduction for Efficient Large Vision-Language Models",
        year=2026,
        url="https://arxiv.org/abs/2505.22654",
        citation="Zhang, Ma, Fang, Yu, Zhang, Zhang, Xie, Sycara, Mi, Yu, TMLR 2026",
    )
    fidelity: ClassVar[Fidelity] = "unverified"
    needs: ClassVar[frozenset[Need]] = frozenset({"vision_attention", "early_vision_attention", "pieces"})
    budget_ratio: ClassVar[float] = 1.5
    kept_inside: ClassVar[float] = 1 / 3
    early_layer: int = 6

    def __post_init__(self) -> None:
        """Check the layers."""
        super().__post_init__()
        checked_layer(self.early_layer, 0, "early_layer")

    @property
    def early_vision_layer(self) -> int:
        return self.early_layer

    def merge_before(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Merged:
        early = given(context, "early_vision_attention", self.name).mean(dim=0).to(visual_tokens.device)
        late = importance(context, self.name).to(early.device)
        windows = windows_on_grid(given_pieces(context, self.name), len(early), WINDOW_SIDE).to(early.device)
        kept = _highest_in_windows(early, windows, num_keep // 2)
        spare = late.masked_fill(kept, -torch.inf)
        kept = kept.index_fill(0, ranked(spare)[: num_keep - num_keep // 2], True)
        return TokenGroups.around(nearest_kept(visual_tokens, kept)).merged()


def _highest_in_windows(scores: Tensor, windows: Tensor, count: int) -> Tensor:
    """(M,) bool: `count` tokens of the highest scores (M,) in their windows (M,), equally many from each."""
    sizes = windows.bincount()
    counts = weighted_shares(count, torch.ones_like(sizes, dtype=torch.float64), sizes)
    order = ranked(scores)
    order = order[windows[order].sort(stable=True).indices]  # by window, the highest first
    firsts = sizes.cumsum(dim=0) - sizes
    place = torch.arange(len(order), device=order.device) - firsts[windows[order]]
    return torch.zeros_like(scores, dtype=torch.bool).scatter(0, order, place < counts[windows[order]])
