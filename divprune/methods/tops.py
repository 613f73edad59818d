"""TOPS, its selection stage: relevance, coverage and diversity in one sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.lazy_torch import torch
from divprune.methods.base import Fidelity, Method, Paper
from divprune.methods.item_context import ItemContext, Need
from divprune.methods.scores import checked_number, importance
from divprune.selection.distances import cosine_similarities
from divprune.selection.greedy import greedy_picks
from divprune.selection.objectives import Balanced, Constant, Coverage, Relevance

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TOPS(Method):
    """Importance + newly covered tokens + difference from the chosen.

    Each pick is argmax_i r_i + coverage * c_i + diversity * d_i, with r the CLS token's attention, c the gain in sum_j
    max over chosen s of s_js, and d = 1 - the largest similarity to the chosen; each term is scaled to [0, 1] over the
    tokens left. The first pick is the one of the largest r. The text has no say. Deviations: this is the paper's first
    stage, before the LLM, alone; the second, inside it, ranks by the attention of SparseVLM's text raters.

    T. Wang, Guo, Huang and 11 others, "TOPS: First-Principles Visual Token Pruning via Constructing Token Optimal
    Preservation Sets for Efficient MLLM Inference", 2026, https://arxiv.org/abs/2606.27161

    Attributes:
        coverage: Weight of the coverage gain, at least 0; the paper's lambda, there in [0.5, 1].
        diversity: Weight of the diversity, at least 0; the paper's alpha, there in [0.5, 1].
    """

    name: ClassVar[str] = "tops"
    nested: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper(
        title="TOPS: First-Principles Visual Token Pruning via Constructing Token Optimal Preservation "
        "Sets for Efficient MLLM Inference",
        year=2026,
        url="https://arxiv.org/abs/2606.27161",
        citation="Wang, Guo, Huang, Lu, Zhang, Li, Zhang, Cao, Shen, Du, Gan, Wang, Cong, Zhang, 2026",
    )
    fidelity: ClassVar[Fidelity] = "documented"
    needs: ClassVar[frozenset[Need]] = frozenset({"vision_attention"})
    coverage: float = 1.0
    diversity: float = 1.0

    def __post_init__(self) -> None:
        """Check the weights."""
        checked_number("coverage", self.coverage, 0)
        checked_number("diversity", self.diversity, 0)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep`."""
        similarity = cosine_similarities(visual_tokens.unsqueeze(0))
        attended = importance(context, self.name).to(similarity).unsqueeze(0)
        redundancy = Relevance(torch.zeros_like(attended), similarity, weight=0.0)
        terms = (1.0, Constant(attended)), (self.coverage, Coverage(similarity)), (self.diversity, redundancy)
        return greedy_picks(Balanced(*terms), num_keep, first=attended.max(dim=1).indices)[0]
