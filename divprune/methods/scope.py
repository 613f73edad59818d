"""SCOPE: how much of the image a token newly covers, times how salient it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.methods.base import Fidelity, Method, Paper
from divprune.methods.item_context import ItemContext, Need, given
from divprune.methods.scores import checked_number, importance
from divprune.selection.distances import cosine_similarities
from divprune.selection.greedy import greedy_picks
from divprune.selection.objectives import Coverage

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SCOPE(Method):
    """Saliency times newly covered tokens.

    Each pick is argmax_u a_u^alpha * sum_i max(0, s_iu - max over chosen s of s_is), the maximum being 0 at first:
    s are cosine similarities of the features before the projector, a the CLS token's attention in the vision encoder's
    last layer but one.

    Deng, Li, Zhou, He, "SCOPE: Saliency-Coverage Oriented Token Pruning for Efficient Multimodal LLMs", NeurIPS 2025,
    https://arxiv.org/abs/2510.24214

    Attributes:
        alpha: Exponent of the saliency, at least 0.
    """

    name: ClassVar[str] = "scope"
    nested: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper(
        title="SCOPE: Saliency-Coverage Oriented Token Pruning for Efficient Multimodal LLMs",
        year=2025,
        url="https://arxiv.org/abs/2510.24214",
        citation="Deng, Li, Zhou, He, NeurIPS 2025",
    )
    fidelity: ClassVar[Fidelity] = "unverified"
    needs: ClassVar[frozenset[Need]] = frozenset({"vision_attention", "patch_features"})
    alpha: float = 1.0

    def __post_init__(self) -> None:
        """Check the exponent."""
        checked_number("alpha", self.alpha, 0)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep`."""
        similarity = cosine_similarities(given(context, "patch_features", self.name).unsqueeze(0))
        saliency = importance(context, self.name).pow(self.alpha).unsqueeze(0)
        return greedy_picks(Coverage(similarity, saliency), num_keep)[0]
