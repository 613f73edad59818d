"""PyramidDrop: fewer visual tokens stage by stage, the deeper the fewer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from divprune.methods.base import Fidelity, Method, Paper, Stage, checked_layer
from divprune.methods.item_context import ItemContext, Need, given
from divprune.methods.scores import ranked

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PyramidDrop(Method):
    """Largest attention from the prompt's last token, asked again after each quarter of the decoder layers.

    With the defaults and M tokens, layers 0-7 see all of them, 8-15 0.5 M, 16-23 0.25 M and the rest 0.125 M, each
    count rounded down, at least 1. Where a stage begins, the attention probabilities of its first layer, averaged over
    the heads, in the row of the prompt's last token, rank the tokens that are left: by that layer's own queries and
    keys of the hidden states that are about to enter it. The method says itself how many tokens stay, so `keep_ratio`
    and `num_keep` are left out.

    L. Xing, Q. Huang, X. Dong, J. Lu, P. Zhang, Y. Zang, Y. Cao, C. He, J. Wang, F. Wu, D. Lin, "PyramidDrop:
    Accelerating Your Large Vision-Language Models via Pyramid Visual Redundancy Reduction", CVPR 2025,
    https://arxiv.org/abs/2410.17247

    Attributes:
        first_layer: where the second stage begins, at least 1; the default is the paper's for 32 decoder layers.
        layers_per_stage: layers of the middle stages, at least 1.
        num_drops: how often tokens are dropped, at least 1.
        stage_ratio: fraction of a stage's tokens that the next one keeps, in (0, 1).
    """

    name: ClassVar[str] = "pyramiddrop"
    nested: ClassVar[bool] = True
    acts: ClassVar[str] = "inside the LLM"
    paper: ClassVar[Paper | None] = Paper(
        title="PyramidDrop: Accelerating Your Large Vision-Language Models via Pyramid Visual Redundancy Reduction",
        year=2025,
        url="https://arxiv.org/abs/2410.17247",
        citation="Xing, Huang, Dong, Lu, Zhang, Zang, Cao, He, Wang, Wu, Lin, CVPR 2025",
    )
    fidelity: ClassVar[Fidelity] = "unverified"
    count: ClassVar[Literal["exact", "schedule"]] = "schedule"
    needs: ClassVar[frozenset[Need]] = frozenset({"attention"})
    decoder_layer: ClassVar[Literal["before", "entering"]] = "entering"
    first_layer: int = 8
    layers_per_stage: int = 8
    num_drops: int = 3
    stage_ratio: float = 0.5

    def __post_init__(self) -> None:
        """Check the layers and the ratio."""
        for name in ("first_layer", "layers_per_stage", "num_drops"):
            checked_layer(getattr(self, name), 1, name)
        if not 0 < self.stage_ratio < 1:
            raise ValueError(f"stage_ratio must be in (0, 1), got {self.stage_ratio}")

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(self.first_layer + drop * self.layers_per_stage for drop in range(self.num_drops))

    def schedule(self, num_visual_tokens: int) -> tuple[Stage, ...]:
        """Return a geometric series."""
        return tuple(
            Stage(layer, max(1, int(num_visual_tokens * self.stage_ratio**drop)))
            for drop, layer in enumerate(self.layers, start=1)
        )

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep`, ties go to the lowest index."""
        return ranked(given(context, "attention", self.name).mean(dim=0))[:num_keep]
