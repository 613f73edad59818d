"""CDPruner: diversity that is conditioned on the question, as a determinantal point process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.lazy_torch import torch
from divprune.methods.base import Fidelity, Method, Paper
from divprune.methods.item_context import ItemContext, Need
from divprune.methods.scores import clip_irrelevance, text_similarity
from divprune.selection.distances import cosine_similarities
from divprune.selection.greedy import greedy_picks
from divprune.selection.objectives import Determinant

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_RELEVANCE = 1e-6


@dataclass(frozen=True)
class CDPruner(Method):
    """Greedy MAP of a determinantal point process: diversity, weighted by relevance to the question.

    argmax over sets C of det(L_C) with L = diag(r) S diag(r), S the cosine similarities of the visual tokens, r their
    relevance, (r - min + 1e-6) / (max - min) within the item (1, where all are equal). With `theta`, r becomes
    exp(theta / (2 (1 - theta)) r). With `clip`, r is as in the paper: minus the cosine similarity of a token's patch
    and the text in CLIP's space, on average over the text's segments. Stand-in without: multimodal models carry no CLIP
    text encoder, so r is the mean cosine similarity of a token with the embeddings of the text; the paper's minus sign
    belongs to CLIP's similarities and is not taken over.

    Q. Zhang, M. Liu, L. Li, M. Lu, Y. Zhang, J. Pan, Q. She, S. Zhang, "Beyond Attention or Similarity: Maximizing
    Conditional Diversity for Token Pruning in MLLMs", NeurIPS 2025, https://arxiv.org/abs/2506.10967

    Attributes:
        clip: Folder of the whole CLIP checkpoint whose vision tower the model has, such as a copy of
            openai/clip-vit-large-patch14-336 for LLaVA-1.5; empty to do without.
        theta: Weight of the relevance against diversity, in [0, 1): 0 is diversity alone. None for r as it is.
    """

    name: ClassVar[str] = "cdpruner"
    nested: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper(
        title="Beyond Attention or Similarity: Maximizing Conditional Diversity for Token Pruning in MLLMs",
        year=2025,
        url="https://arxiv.org/abs/2506.10967",
        citation="Zhang, Liu, Li, Lu, Zhang, Pan, She, Zhang, NeurIPS 2025",
    )
    fidelity: ClassVar[Fidelity] = "stand-in"
    needs: ClassVar[frozenset[Need]] = frozenset({"text_embeddings"})
    clip: str = ""
    theta: float | None = None

    def __post_init__(self) -> None:
        """Check theta; need CLIP's embeddings instead of the language model's, if there is a checkpoint."""
        if self.theta is not None and not 0 <= self.theta < 1:
            raise ValueError(f"theta must be in [0, 1), or None, got {self.theta!r}")
        if self.clip:
            object.__setattr__(self, "needs", frozenset({"clip_embeddings", "clip_text"}))

    @property
    def clip_folder(self) -> str:
        return self.clip

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep`."""
        if self.clip:
            relevance = clip_irrelevance(context, self.name).to(visual_tokens.device)
        else:
            relevance = text_similarity(visual_tokens, context, self.name).mean(dim=0)
        weight = self.weights(relevance)
        kernel = cosine_similarities(visual_tokens.unsqueeze(0)) * weight.unsqueeze(0) * weight.unsqueeze(1)
        return greedy_picks(Determinant(kernel, num_keep), num_keep)[0]

    def weights(self, relevance: Tensor) -> Tensor:
        """Return what the kernel is weighted by, of raw relevance (M,); with `theta`, 1 at most.

        A common factor changes no pick, and exponents of at most 0 cannot overflow.
        """
        low, high = relevance.amin(), relevance.amax()
        scaled = torch.where(high > low, (relevance - low + SMALLEST_RELEVANCE) / (high - low), 1.0)
        if self.theta is None:
            return scaled
        return (self.theta / (2 * (1 - self.theta)) * (scaled - scaled.amax())).exp()
