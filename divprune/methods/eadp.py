"""EADP: coverage of the tokens that the question's telling words point at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.lazy_torch import torch
from divprune.methods.base import Fidelity, Method, Paper
from divprune.methods.item_context import ItemContext, Need, Piece, given
from divprune.methods.scores import checked_number, text_similarity
from divprune.selection.distances import cosine_similarities
from divprune.selection.greedy import greedy_picks
from divprune.selection.objectives import Coverage

if TYPE_CHECKING:
    from torch import Tensor

TELLING_FRACTION = 0.2
"""Of the text tokens, those of the lowest entropy."""
SMALLEST_WEIGHT = 1e-6


@dataclass(frozen=True)
class EADP(Method):
    """Weighted facility location: cover the tokens that the question is about.

    Greedy maximum of sum_j w_j max over chosen i of (s_ij + 1) / 2, s the cosine similarities of the visual tokens.
    Relevance r is made of MINUS the cosines of visual and text tokens: mix * (that with the mean text embedding) +
    (1 - mix) * (a weighted sum of those with each telling text token). w is r, scaled to
    (r - min + 1e-6) / (max - min + 1e-6), smoothed on the grid by a 3 x 3 Gaussian (sigma 1, reflected at the edges),
    to the power of beta. H is the entropy of a text token's softmax(values / temperature) over the visual tokens;
    telling are the max(1, int(0.2 T)) of the T text tokens with the lowest H, weighted by softmax(-H / temperature).

    This is the authors' variant without CLIP, in the language model's space. Deviations: tiles share one budget, where
    the paper gives each a part by its summed weights; nothing is smoothed where the tokens' places are not known.

    Wang, Yang, Shen, "Combating Textual Noise and Redundancy: Entropy-Aware Dense Visual Token Pruning", ECCV 2026,
    https://arxiv.org/abs/2607.02484

    Attributes:
        beta: Exponent of the relevance, at least 0; the paper's: 1 for LLaVA, 2 for Qwen.
        mix: Fraction of the whole text in the relevance, in [0, 1].
        temperature: Of both softmaxes, above 0.
    """

    name: ClassVar[str] = "eadp"
    nested: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper(
        title="Combating Textual Noise and Redundancy: Entropy-Aware Dense Visual Token Pruning",
        year=2026,
        url="https://arxiv.org/abs/2607.02484",
        citation="Wang, Yang, Shen, ECCV 2026",
    )
    fidelity: ClassVar[Fidelity] = "documented"
    needs: ClassVar[frozenset[Need]] = frozenset({"text_embeddings"})
    reads: ClassVar[frozenset[Need]] = frozenset({"grid", "pieces"})
    beta: float = 1.0
    mix: float = 0.5
    temperature: float = 0.01

    def __post_init__(self) -> None:
        """Check the parameters."""
        checked_number("beta", self.beta, 0)
        checked_number("mix", self.mix, 0, 1)
        checked_number("temperature", self.temperature, 1e-4)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep`."""
        weight = smoothed(self.relevance(visual_tokens, context), grids_of(context)).pow(self.beta)
        cover = (cosine_similarities(visual_tokens.unsqueeze(0)) + 1) / 2 * weight.unsqueeze(1)
        return greedy_picks(Coverage(cover), num_keep)[0]

    def relevance(self, visual_tokens: Tensor, context: ItemContext) -> Tensor:
        """Return (M,) relevance to the question, between about 1e-6 and 1.

        Raises:
            ValueError: The prompt holds no text.
        """
        words = -text_similarity(visual_tokens, context, self.name)  # (T, M)
        if not len(words):
            raise ValueError(f"the prompt must hold text for method {self.name!r}, got none: ask something")
        whole = given(context, "text_embeddings", self.name).mean(dim=0, keepdim=True)
        by_all = -text_similarity(visual_tokens, ItemContext(text_embeddings=whole), self.name)[0]
        relevance = self.mix * by_all + (1 - self.mix) * self._by_telling_words(words)
        low, high = relevance.amin(), relevance.amax()
        return (relevance - low + SMALLEST_WEIGHT) / (high - low + SMALLEST_WEIGHT)

    def _by_telling_words(self, words: Tensor) -> Tensor:
        """Return (M,) the weighted sum of the rows of `words` (T, M) that single out some tokens."""
        entropy = torch.special.entr((words / self.temperature).softmax(dim=-1)).sum(dim=-1)
        telling = entropy.sort(stable=True).indices[: max(1, int(TELLING_FRACTION * len(words)))]
        weights: Tensor = (-entropy[telling] / self.temperature).softmax(dim=0)
        return weights @ words[telling]


def grids_of(context: ItemContext) -> tuple[Piece, ...]:
    """Return the grids that an item's tokens form, as far as they are known."""
    if context.pieces is not None or context.grid is None:
        return context.pieces or ()
    frames, rows, columns = context.grid
    return tuple(Piece(frame * rows * columns, rows, columns, columns) for frame in range(frames))


def smoothed(scores: Tensor, grids: tuple[Piece, ...]) -> Tensor:
    """Return scores (M,), those on `grids` averaged with their 3 x 3 neighbours by a Gaussian, reflected at the edges.

    A loop over tiles or frames, which may differ in size.
    """
    line = (-0.5 * torch.arange(-1, 2, dtype=scores.dtype, device=scores.device).square()).exp()
    kernel = torch.outer(line, line) / line.sum().square()
    result = scores.clone()
    for grid in grids:
        row, column = _reflected(grid.rows, scores.device), _reflected(grid.columns, scores.device)
        places = grid.start + grid.stride * row.unsqueeze(1) + column  # (rows + 2, columns + 2)
        result[places[1:-1, 1:-1]] = torch.nn.functional.conv2d(scores[places][None, None], kernel[None, None])[0, 0]
    return result


def _reflected(length: int, device: torch.device) -> Tensor:
    """Return 1, 0, 1, ..., length - 1, length - 2: positions on an axis and their reflections at its ends."""
    inside = torch.arange(length, device=device)
    return torch.cat([inside[1:2] if length > 1 else inside, inside, inside[-2:-1] if length > 1 else inside])
