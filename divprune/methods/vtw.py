"""VTW: withdraw every visual token after some layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.lazy_torch import torch
from divprune.methods.base import Count, Fidelity, Method, Paper, Stage, checked_layer
from divprune.methods.item_context import ItemContext

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class VTW(Method):
    """No visual tokens at all from decoder layer K on; the text keeps its positions.

    The method says itself how many tokens stay, so `keep_ratio` and `num_keep` are left out.

    Z. Lin, M. Lin, L. Lin, R. Ji, "Boosting Multimodal Large Language Models with Visual Tokens Withdrawal for Rapid
    Inference", AAAI 2025, https://arxiv.org/abs/2405.05803

    Attributes:
        layer: K, at least 1; the default is the paper's for LLaVA-1.5-7B (32 decoder layers).
            `divprune.huggingface.calibrate_vtw` finds it for other models.
    """

    name: ClassVar[str] = "vtw"
    nested: ClassVar[bool] = True
    acts: ClassVar[str] = "inside the LLM"
    paper: ClassVar[Paper | None] = Paper(
        title="Boosting Multimodal Large Language Models with Visual Tokens Withdrawal for Rapid Inference",
        year=2025,
        url="https://arxiv.org/abs/2405.05803",
        citation="Lin, Lin, Lin, Ji, AAAI 2025",
    )
    fidelity: ClassVar[Fidelity] = "unverified"
    count: ClassVar[Count] = "schedule"
    layer: int = 15

    def __post_init__(self) -> None:
        """Check the layer: without any layer of theirs the visual tokens would be no input at all."""
        checked_layer(self.layer, 1)

    @property
    def layers(self) -> tuple[int, ...]:
        return (self.layer,)

    def schedule(self, num_visual_tokens: int) -> tuple[Stage, ...]:
        """Withdraw all tokens: none stays."""
        return (Stage(self.layer, 0),)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select the first `num_keep` tokens, of which the schedule asks none."""
        return torch.arange(num_keep, device=visual_tokens.device)
