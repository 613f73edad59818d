"""ID-Selection: important tokens, each of which makes its neighbours less so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.methods.base import Fidelity, Method, Paper
from divprune.methods.item_context import ItemContext, Need
from divprune.methods.scores import checked_number, importance
from divprune.selection.distances import cosine_similarities, unit_range
from divprune.selection.greedy import greedy_picks
from divprune.selection.objectives import Suppression

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class IDSelection(Method):
    """Important tokens, each of which suppresses the importance of its neighbours.

    The scores are the CLS token's attention, scaled to [0, 1] within the item. Pick i = argmax of the scores; then
    score_j = max(0, score_j - exp(-gamma d_ij^2) score_i) for every other j, with d the cosine distance of the visual
    tokens. Tokens whose scores are 0 come last, by their attention.

    Ours: scaling and the bound at 0, which the paper does not name. Without them scores fall below 0, and a pick with a
    negative score raises those of its neighbours. No code of the authors is known to us.

    Huang, Liu, Zhang, Chao, Ji, "ID-Selection: Importance-Diversity Based Visual Token Selection for Efficient LVLM
    Inference", 2026, https://arxiv.org/abs/2604.05601

    Attributes:
        gamma: How fast suppression fades with the distance, at least 0.
    """

    name: ClassVar[str] = "id-selection"
    nested: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper(
        title="ID-Selection: Importance-Diversity Based Visual Token Selection for Efficient LVLM Inference",
        year=2026,
        url="https://arxiv.org/abs/2604.05601",
        citation="Huang, Liu, Zhang, Chao, Ji, 2026",
    )
    fidelity: ClassVar[Fidelity] = "unverified"
    needs: ClassVar[frozenset[Need]] = frozenset({"vision_attention"})
    gamma: float = 20.0

    def __post_init__(self) -> None:
        """Check gamma."""
        checked_number("gamma", self.gamma, 0)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep`."""
        distance = 1 - cosine_similarities(visual_tokens.unsqueeze(0))
        nearness = (-self.gamma * distance.square()).exp()
        scores = unit_range(importance(context, self.name)).to(nearness.dtype).unsqueeze(0)
        return greedy_picks(Suppression(scores, nearness), num_keep)[0]
