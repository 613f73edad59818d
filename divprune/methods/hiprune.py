"""HiPrune: objects by an early vision layer, the whole by the last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from divprune.lazy_torch import torch
from divprune.methods.base import Fidelity, Method, Paper, checked_layer
from divprune.methods.grids import given_pieces, neighbours_on_grid
from divprune.methods.item_context import ItemContext, Need, given
from divprune.methods.scores import checked_number, importance, ranked

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class HiPrune(Method):
    """A few tokens that a middle layer of the vision encoder attends to, with their neighbours; the rest by the last.

    Of k tokens, round(alpha k / 5) anchors have the highest attention in a middle layer, averaged over the heads and
    over all tokens of the encoder; each brings the tokens above, below, left and right of it. The others have the
    highest such attention in the last layer. The order is anchors, their neighbours, the others. Choices where the
    paper leaves one: neighbours lie on the token's own grid (tile); if anchors and neighbours are more than k, the
    first k stay.

    J. Liu, F. Du, G. Zhu, N. Lian, J. Li, B. Chen, "HiPrune: Training-Free Visual Token Pruning via Hierarchical
    Attention in Vision-Language Models", 2025, https://arxiv.org/abs/2508.00553

    Attributes:
        alpha: Fraction of the kept tokens that anchors and their neighbours make up, in [0, 1].
        early_layer: the middle layer, counted from 0; the paper's is 9 of 24, and 16 for Qwen2.5-VL's 32.
    """

    name: ClassVar[str] = "hiprune"
    paper: ClassVar[Paper | None] = Paper(
        title="HiPrune: Training-Free Visual Token Pruning via Hierarchical Attention in Vision-Language Models",
        year=2025,
        url="https://arxiv.org/abs/2508.00553",
        citation="Liu, Du, Zhu, Lian, Li, Chen, 2025",
    )
    fidelity: ClassVar[Fidelity] = "unverified"
    needs: ClassVar[frozenset[Need]] = frozenset({"vision_attention", "early_vision_attention", "pieces"})
    vision_layer: ClassVar[int] = -1
    attending: ClassVar[Literal["cls", "all"]] = "all"
    alpha: float = 0.1
    early_layer: int = 9

    def __post_init__(self) -> None:
        """Check the fraction and the layer."""
        checked_number("alpha", self.alpha, 0, 1)
        checked_layer(self.early_layer, 0, "early_layer")

    @property
    def early_vision_layer(self) -> int:
        return self.early_layer

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        early = given(context, "early_vision_attention", self.name).mean(dim=0)
        anchors = ranked(early)[: round(self.alpha * num_keep / 5)]
        beside = neighbours_on_grid(given_pieces(context, self.name), len(early), early.device)[anchors].flatten()
        order = torch.cat([anchors, beside[beside >= 0], ranked(importance(context, self.name))])
        # Every token stands where it comes first.
        places = torch.arange(len(order), device=order.device)
        first = torch.full_like(early, len(order), dtype=torch.int64).scatter_reduce(0, order, places, "amin")
        return first.sort().indices[:num_keep].to(visual_tokens.device)
