"""CDPruner: diversity that is conditioned on the question, as a determinantal point process."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from divprune.methods.base import ItemContext, Method, Need, Paper
from divprune.methods.scores import clip_irrelevance, relevance
from divprune.selection.distances import cosine_similarities, unit_range
from divprune.selection.greedy import greedy_picks
from divprune.selection.objectives import Determinant

SMALLEST_RELEVANCE = 1e-6


@dataclass(frozen=True)
class CDPruner(Method):
    """Greedy MAP of a determinantal point process: diversity, weighted by relevance to the question.

    argmax over sets C of det(L_C) with L = diag(r) S diag(r), S the cosine similarities of the visual tokens, r their
    relevance, scaled to [0, 1] within the item, plus 1e-6. With `clip`, r is as in the paper: minus the cosine
    similarity of a token's patch and the text in CLIP's space, on average over the text's segments. Deviation without:
    multimodal models carry no CLIP text encoder, so r is the mean cosine similarity of a token with the embeddings of
    the text, without the minus sign, which belongs to CLIP's similarities. The optional exponent theta is left out.

    Q. Zhang, M. Liu, L. Li, M. Lu, Y. Zhang, J. Pan, Q. She, S. Zhang, "Beyond Attention or Similarity: Maximizing
    Conditional Diversity for Token Pruning in MLLMs", NeurIPS 2025, https://arxiv.org/abs/2506.10967

    Attributes:
        clip: Folder of the whole CLIP checkpoint whose vision tower the model has, such as a copy of
            openai/clip-vit-large-patch14-336 for LLaVA-1.5; empty to do without.
    """

    name: ClassVar[str] = "cdpruner"
    paper: ClassVar[Paper | None] = Paper(
        title="Beyond Attention or Similarity: Maximizing Conditional Diversity for Token Pruning in MLLMs",
        year=2025,
        url="https://arxiv.org/abs/2506.10967",
        citation="Zhang, Liu, Li, Lu, Zhang, Pan, She, Zhang, NeurIPS 2025",
    )
    needs: ClassVar[frozenset[Need]] = frozenset({"text_embeddings"})
    clip: str = ""

    def __post_init__(self) -> None:
        """Need CLIP's embeddings instead of the language model's, if there is a checkpoint."""
        if self.clip:
            object.__setattr__(self, "needs", frozenset({"clip_embeddings", "clip_text"}))

    @property
    def clip_folder(self) -> str:
        return self.clip

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep`."""
        if self.clip:
            weight = unit_range(clip_irrelevance(context, self.name).to(visual_tokens.device)) + SMALLEST_RELEVANCE
        else:
            weight = relevance(visual_tokens, context, self.name) + SMALLEST_RELEVANCE
        kernel = cosine_similarities(visual_tokens.unsqueeze(0)) * weight.unsqueeze(0) * weight.unsqueeze(1)
        return greedy_picks(Determinant(kernel, num_keep), num_keep)[0]
