"""FastV: keep the tokens that the prompt's last token attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.methods.base import Fidelity, Method, Paper, checked_layer
from divprune.methods.item_context import ItemContext, Need, given
from divprune.methods.scores import ranked

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class FastV(Method):
    """Largest attention from the prompt's last token, after the first decoder layers.

    All tokens run through decoder layers 0 to K - 1. The attention probabilities of layer K - 1, averaged over the
    heads, in the row of the prompt's last token, rank the visual tokens; the highest stay from layer K on, at their own
    positions. With a cache the choice is made once, in the prefill. The paper's R is what is dropped: 1 - keep_ratio.

    L. Chen, H. Zhao, T. Liu, S. Bai, J. Lin, C. Zhou, B. Chang, "An Image is Worth 1/2 Tokens After Layer 2:
    Plug-and-Play Inference Acceleration for Large Vision-Language Models", ECCV 2024, https://arxiv.org/abs/2403.06764

    Attributes:
        layer: K, at least 1; the paper's default is 2.
    """

    name: ClassVar[str] = "fastv"
    nested: ClassVar[bool] = True
    acts: ClassVar[str] = "inside the LLM"
    paper: ClassVar[Paper | None] = Paper(
        title="An Image is Worth 1/2 Tokens After Layer 2: Plug-and-Play Inference Acceleration for Large "
        "Vision-Language Models",
        year=2024,
        url="https://arxiv.org/abs/2403.06764",
        citation="Chen, Zhao, Liu, Bai, Lin, Zhou, Chang, ECCV 2024",
    )
    fidelity: ClassVar[Fidelity] = "unverified"
    needs: ClassVar[frozenset[Need]] = frozenset({"attention"})
    layer: int = 2

    def __post_init__(self) -> None:
        """Check the layer: there must be one before it, whose attention ranks the tokens."""
        checked_layer(self.layer, 1)

    @property
    def layers(self) -> tuple[int, ...]:
        return (self.layer,)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep`, ties go to the lowest index."""
        return ranked(given(context, "attention", self.name).mean(dim=0))[:num_keep]
