"""DivPrune with as many tokens as PruMerge would keep: the paper's "DivPrune*"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.methods.base import Count, Fidelity, Method
from divprune.methods.divprune import DivPrune
from divprune.methods.item_context import ItemContext, Need
from divprune.methods.prumerge import PruMerge

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DivPruneStar(Method):
    """DivPrune with the number of tokens that PruMerge finds for each image ("DivPrune*" of the paper's Table 1).

    With `num_keep` or `keep_ratio` it is DivPrune itself. Deviation: the number is that of our `PruMerge`, which takes
    the quartiles of each image, not of the batch.
    """

    name: ClassVar[str] = "divprune-star"
    nested: ClassVar[bool] = True
    paper = DivPrune.paper
    fidelity: ClassVar[Fidelity] = "documented"
    count: ClassVar[Count] = "adaptive"
    needs: ClassVar[frozenset[Need]] = frozenset({"vision_attention"})
    vision_layer: ClassVar[int] = PruMerge.vision_layer
    joins_heads: ClassVar[bool] = PruMerge.joins_heads

    def adaptive_count(self, visual_tokens: Tensor, context: ItemContext) -> int:
        return PruMerge().adaptive_count(visual_tokens, context)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep`."""
        return DivPrune().select(visual_tokens, num_keep, context)
