"""EADP: coverage of the tokens that the question's telling words point at."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import torch
from torch import Tensor

from divprune.methods.base import ItemContext, Method, Need, Paper
from divprune.methods.scores import checked_number, text_similarity
from divprune.selection.distances import cosine_similarities, unit_range
from divprune.selection.greedy import greedy_picks
from divprune.selection.objectives import Coverage

GAUSSIAN = (0.25, 0.5, 0.25)


@dataclass(frozen=True)
class EADP(Method):
    """Weighted facility location: cover the tokens that the question is about.

    Greedy maximum of sum_j w_j max over chosen i of s_ij, s the cosine similarities of the visual tokens, w =
    (relevance, smoothed by a 3 x 3 Gaussian)^beta. Relevance is half the similarity to the text as a whole and half the
    similarity to each of its tokens, weighted by how low the entropy of that token's softmax over the image is.
    Deviations: the language model's text embeddings, and their mean for the whole, stand in for CLIP's; the smoothing
    is left out where the tokens form no grid; the values of beta, mix and temperature are ours.

    Attributes:
        beta: Exponent of the relevance, at least 0.
        mix: Fraction of the whole text in the relevance, in [0, 1].
        temperature: Of the softmax whose entropy is taken, above 0.
    """

    name: ClassVar[str] = "eadp"
    paper: ClassVar[Paper | None] = Paper("EADP", None, None, "EADP")
    needs: ClassVar[frozenset[Need]] = frozenset({"text_embeddings"})
    reads: ClassVar[frozenset[Need]] = frozenset({"grid"})
    beta: float = 1.0
    mix: float = 0.5
    temperature: float = 0.05

    def __post_init__(self) -> None:
        """Check the parameters."""
        checked_number("beta", self.beta, 0)
        checked_number("mix", self.mix, 0, 1)
        checked_number("temperature", self.temperature, 1e-4)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep`."""
        weight = smoothed(self.relevance(visual_tokens, context), context.grid).pow(self.beta)
        cover = cosine_similarities(visual_tokens.unsqueeze(0))[0] * weight.unsqueeze(1)
        return greedy_picks(Coverage(cover.unsqueeze(0)), num_keep)[0]

    def relevance(self, visual_tokens: Tensor, context: ItemContext) -> Tensor:
        """Return (M,) relevance to the question, scaled to [0, 1]."""
        similarity = text_similarity(visual_tokens, context, self.name)
        shares = (similarity / self.temperature).softmax(dim=-1)
        focus = (1 - torch.special.entr(shares).sum(dim=-1) / log(max(2, similarity.shape[1]))).clamp(min=0)
        total = focus.sum()
        focus = torch.where(total > 0, focus / total, 1 / len(focus))
        by_words = unit_range((focus.unsqueeze(1) * similarity).sum(dim=0))
        return unit_range(self.mix * unit_range(similarity.mean(dim=0)) + (1 - self.mix) * by_words)


def smoothed(scores: Tensor, grid: tuple[int, int, int] | None) -> Tensor:
    """Return scores (M,) averaged with their 3 x 3 neighbours on the grid by a Gaussian; edges by what is there."""
    if grid is None:
        return scores
    kernel = torch.tensor(GAUSSIAN, dtype=scores.dtype, device=scores.device)
    kernel = torch.outer(kernel, kernel)[None, None]
    frames = scores.view(grid[0], 1, *grid[1:])
    weight = torch.nn.functional.conv2d(torch.ones_like(frames), kernel, padding=1)
    return (torch.nn.functional.conv2d(frames, kernel, padding=1) / weight).flatten()
