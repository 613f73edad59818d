"""Maximal marginal relevance: importance against redundancy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.methods.base import Fidelity, Method, Paper
from divprune.methods.item_context import ItemContext, Need
from divprune.methods.scores import checked_number, importance
from divprune.selection.distances import cosine_similarities, unit_range
from divprune.selection.greedy import greedy_picks
from divprune.selection.objectives import Relevance

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MMR(Method):
    """Importance against redundancy (maximal marginal relevance, as IDPruner uses it).

    Each pick is argmax_i weight * a_i - (1 - weight) * max over chosen s of s_is: a is the CLS token's attention,
    scaled to [0, 1] within the item, s are cosine similarities of the visual tokens. The first pick is the most
    important. Stand-in: IDPruner's own importance is a trained scorer, which we do not have.

    Tan, Sun, Huang, Liu, Yu, Zhu, Deng, "IDPruner: Harmonizing Importance and Diversity in Visual Token Pruning for
    MLLMs", 2026, https://arxiv.org/abs/2602.13315; the rule is J. Carbonell, J. Goldstein, "The Use of MMR,
    Diversity-Based Reranking for Reordering Documents and Producing Summaries", SIGIR 1998.

    Attributes:
        weight: Of the importance, in [0, 1]; the paper's lambda.
    """

    name: ClassVar[str] = "mmr"
    nested: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper(
        title="IDPruner: Harmonizing Importance and Diversity in Visual Token Pruning for MLLMs",
        year=2026,
        url="https://arxiv.org/abs/2602.13315",
        citation="Tan, Sun, Huang, Liu, Yu, Zhu, Deng, 2026",
    )
    fidelity: ClassVar[Fidelity] = "stand-in"
    needs: ClassVar[frozenset[Need]] = frozenset({"vision_attention"})
    weight: float = 0.5

    def __post_init__(self) -> None:
        """Check the weight."""
        checked_number("weight", self.weight, 0, 1)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep`."""
        worth = unit_range(importance(context, self.name)).unsqueeze(0)
        similarity = cosine_similarities(visual_tokens.unsqueeze(0))
        return greedy_picks(Relevance(worth, similarity, self.weight), num_keep)[0]
