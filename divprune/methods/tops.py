"""TOPS, its selection stage: relevance, coverage and diversity in one sum."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from divprune.methods.base import ItemContext, Method, Need, Paper
from divprune.methods.scores import checked_number, relevance
from divprune.selection.distances import cosine_similarities
from divprune.selection.greedy import greedy_picks
from divprune.selection.objectives import Balanced, Constant, Coverage, Relevance


@dataclass(frozen=True)
class TOPS(Method):
    """Relevance to the question + newly covered tokens + difference from the chosen.

    Each pick is argmax_i r_i + coverage * c_i + diversity * d_i, with r the relevance, c the gain in sum_j max over
    chosen s of s_js, and d = 1 - the largest similarity to the chosen; each term is scaled to [0, 1] over the tokens
    left. The first pick is the most relevant. Only this selection stage of the paper. Deviations: r is the mean cosine
    similarity with the language model's text embeddings, as there is no CLIP text encoder; the two weights, and scaling
    anew in every step, are ours.

    Attributes:
        coverage: Weight of the coverage gain, at least 0; the paper's lambda.
        diversity: Weight of the diversity, at least 0; the paper's alpha.
    """

    name: ClassVar[str] = "tops"
    paper: ClassVar[Paper | None] = Paper("TOPS", None, None, "TOPS")
    needs: ClassVar[frozenset[Need]] = frozenset({"text_embeddings"})
    coverage: float = 1.0
    diversity: float = 1.0

    def __post_init__(self) -> None:
        """Check the weights."""
        checked_number("coverage", self.coverage, 0)
        checked_number("diversity", self.diversity, 0)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep`."""
        similarity = cosine_similarities(visual_tokens.unsqueeze(0))
        relevant = relevance(visual_tokens, context, self.name).to(similarity.dtype).unsqueeze(0)
        redundancy = Relevance(torch.zeros_like(relevant), similarity, weight=0.0)
        terms = (1.0, Constant(relevant)), (self.coverage, Coverage(similarity)), (self.diversity, redundancy)
        return greedy_picks(Balanced(*terms), num_keep, first=relevant.max(dim=1).indices)[0]
