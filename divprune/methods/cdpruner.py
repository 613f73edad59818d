"""CDPruner: diversity that is conditioned on the question, as a determinantal point process."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from divprune.methods.base import ItemContext, Method, Need, Paper
from divprune.methods.scores import relevance
from divprune.selection.distances import cosine_similarities
from divprune.selection.greedy import greedy_picks
from divprune.selection.objectives import Determinant

SMALLEST_RELEVANCE = 1e-6


@dataclass(frozen=True)
class CDPruner(Method):
    """Greedy MAP of a determinantal point process: diversity, weighted by relevance to the question.

    argmax over sets C of det(L_C) with L = diag(r) S diag(r), S the cosine similarities of the visual tokens, r their
    relevance, scaled to [0, 1] within the item, plus 1e-6. Deviation: multimodal models carry no CLIP text encoder, so
    r is the mean cosine similarity of a token with the embeddings of the text; the paper's minus sign belongs to CLIP's
    similarities and is not taken over. Its optional exponent theta is left out.

    Q. Zhang, M. Liu, L. Li, M. Lu, Y. Zhang, J. Pan, Q. She, S. Zhang, "Beyond Attention or Similarity: Maximizing
    Conditional Diversity for Token Pruning in MLLMs", NeurIPS 2025, https://arxiv.org/abs/2506.10967
    """

    name: ClassVar[str] = "cdpruner"
    paper: ClassVar[Paper | None] = Paper(
        title="Beyond Attention or Similarity: Maximizing Conditional Diversity for Token Pruning in MLLMs",
        year=2025,
        url="https://arxiv.org/abs/2506.10967",
        citation="Zhang, Liu, Li, Lu, Zhang, Pan, She, Zhang, NeurIPS 2025",
    )
    needs: ClassVar[frozenset[Need]] = frozenset({"text_embeddings"})

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep`."""
        weight = relevance(visual_tokens, context, self.name) + SMALLEST_RELEVANCE
        kernel = cosine_similarities(visual_tokens.unsqueeze(0)) * weight.unsqueeze(0) * weight.unsqueeze(1)
        return greedy_picks(Determinant(kernel, num_keep), num_keep)[0]
