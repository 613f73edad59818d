"""MMTok: tokens that cover both the question and the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.lazy_torch import torch
from divprune.methods.base import Fidelity, Method, Paper
from divprune.methods.item_context import ItemContext, Need, given
from divprune.methods.scores import checked_number, text_similarity
from divprune.selection.distances import cosine_similarities
from divprune.selection.greedy import greedy_picks
from divprune.selection.objectives import Coverage

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MMTok(Method):
    """Coverage of the text's tokens and of the image's at once.

    Rows to cover are the m text tokens, P = softmax over the n visual tokens of (z . x / 0.02) / m with unit embeddings
    z and tokens x, and the n visual tokens, Q = softmax(c . c / 0.2) / n with unit features c before the projector.
    Each pick is argmax_u of the sum over rows of max(0, C_ru - best so far) with C = [P; 0.5 Q].

    Dong, Hu, Zhang, Yin, Fu, Qian, "MMTok: Multimodal Coverage Maximization for Efficient Inference of VLMs", ICLR
    2026, https://arxiv.org/abs/2508.18264

    Attributes:
        text_temperature: Of the softmax in P, above 0.
        vision_temperature: Of the softmax in Q, above 0.
        vision_weight: Of Q beside P, at least 0.
    """

    name: ClassVar[str] = "mmtok"
    nested: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper(
        title="MMTok: Multimodal Coverage Maximization for Efficient Inference of VLMs",
        year=2026,
        url="https://arxiv.org/abs/2508.18264",
        citation="Dong, Hu, Zhang, Yin, Fu, Qian, ICLR 2026",
    )
    fidelity: ClassVar[Fidelity] = "unverified"
    needs: ClassVar[frozenset[Need]] = frozenset({"text_embeddings", "patch_features"})
    text_temperature: float = 0.02
    vision_temperature: float = 0.2
    vision_weight: float = 0.5

    def __post_init__(self) -> None:
        """Check the parameters."""
        checked_number("text_temperature", self.text_temperature, 1e-4)
        checked_number("vision_temperature", self.vision_temperature, 1e-4)
        checked_number("vision_weight", self.vision_weight, 0)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep`."""
        text = text_similarity(visual_tokens, context, self.name)
        vision = cosine_similarities(given(context, "patch_features", self.name).unsqueeze(0))[0]
        by_text = (text / self.text_temperature).softmax(dim=-1) / len(text)
        by_vision = (vision / self.vision_temperature).softmax(dim=-1) / len(vision)
        cover = torch.cat([by_text.to(by_vision.dtype), self.vision_weight * by_vision])
        return greedy_picks(Coverage(cover.unsqueeze(0)), num_keep)[0]
