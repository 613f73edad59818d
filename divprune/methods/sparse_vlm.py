"""SparseVLM: the words that matter rate the visual tokens, layer by layer, and the best of the dropped are recycled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.lazy_torch import torch
from divprune.methods.base import Count, Fidelity, Paper, Stage, checked_layer
from divprune.methods.item_context import ItemContext, Need, given
from divprune.methods.merging import Merged, MergingMethod, merged
from divprune.methods.scores import ranked
from divprune.selection.density_peaks import clusters

if TYPE_CHECKING:
    from torch import Tensor

PUBLISHED = {192: (300, 200, 110), 128: (303, 110, 36), 96: (238, 48, 26), 64: (66, 30, 17)}
"""By mean budget: how many of 576 tokens are kept by their score at each of the three layers."""
PUBLISHED_TOKENS = 576


@dataclass(frozen=True)
class SparseVLM(MergingMethod):
    """Attention from the words that matter, at three decoder layers; the best of the dropped are merged.

    Raters are the text tokens that the visual ones resemble: softmax over the text of visual . text (input embeddings),
    mean over all visual tokens of the prompt; above the mean of these, a token rates. The attention of layers 2, 6 and
    15, averaged over the heads and the raters, scores the visual tokens and the highest stay from the next layer on. Of
    n dropped ones, the int(0.3 n) + 1 highest are recycled: clustered by density peaks of their hidden states (as many
    neighbours as clusters) to a tenth of their number, rounded down, plus 1, each cluster averaged.

    The published counts, for 576 tokens: 300, 200, 110 for a mean budget of 192 tokens, 303, 110, 36 for 128,
    238, 48, 26 for 96, and 66, 30, 17 for 64. They leave out the recycled tokens, which the mean budget counts; and it
    counts the layer that scores as one with fewer tokens already. As executed, 576 tokens in layers 0 to 2, 309 in 3 to
    6, 204 in 7 to 15 and 113 in the rest are 206.5 on average over 32 layers instead of 192, and 145.4, 114.1 and 82.3
    instead of 128, 96 and 64. `schedule` tells these true counts. With other numbers of tokens, the published ones are
    scaled, rounded, and at least 1; with other layers the mean is another. Asked for a count, the method keeps as many
    by score as it can so that kept and recycled ones together are so many.

    Deviations: the paper appends recycled tokens behind the others and numbers all anew; here a merged token takes the
    place of its cluster's centre, and every token keeps its position, as in the paper's second version. A prompt that
    puts nothing after its images is rated by all its text, as is one in which no text token is above the mean.

    Y. Zhang, C.-K. Fan, J. Ma, W. Zheng, T. Huang, K. Cheng, D. Gudovskiy, T. Okuno, Y. Nakata, K. Keutzer, S. Zhang,
    "SparseVLM: Visual Token Sparsification for Efficient Vision-Language Model Inference", ICML 2025,
    https://arxiv.org/abs/2410.04417

    Attributes:
        tokens: the published mean budget, one of 192, 128, 96 and 64 (of 576 tokens, in 32 layers).
        first_layer: where tokens are dropped first, at least 1; the layer before it scores them.
        second_layer: a later one.
        third_layer: a later one still.
        recycle: whether the best of the dropped tokens are merged, or all lost.
    """

    name: ClassVar[str] = "sparsevlm"
    acts: ClassVar[str] = "inside the LLM"
    paper: ClassVar[Paper | None] = Paper(
        title="SparseVLM: Visual Token Sparsification for Efficient Vision-Language Model Inference",
        year=2025,
        url="https://arxiv.org/abs/2410.04417",
        citation="Zhang, Fan, Ma, Zheng, Huang, Cheng, Gudovskiy, Okuno, Nakata, Keutzer, Zhang, ICML 2025",
    )
    fidelity: ClassVar[Fidelity] = "documented"
    count: ClassVar[Count] = "schedule"
    needs: ClassVar[frozenset[Need]] = frozenset({"text_attention", "text_embeddings", "input_tokens"})
    tokens: int = 192
    first_layer: int = 3
    second_layer: int = 7
    third_layer: int = 16
    recycle: bool = True

    def __post_init__(self) -> None:
        """Check the budget and the layers."""
        if self.tokens not in PUBLISHED:
            raise ValueError(f"tokens must be one of {', '.join(map(str, PUBLISHED))}, got {self.tokens!r}")
        for name, lowest in (
            ("first_layer", 1),
            ("second_layer", self.first_layer + 1),
            ("third_layer", self.second_layer + 1),
        ):
            checked_layer(getattr(self, name), lowest, name)

    @property
    def layers(self) -> tuple[int, ...]:
        return self.first_layer, self.second_layer, self.third_layer

    def schedule(self, num_visual_tokens: int) -> tuple[Stage, ...]:
        """Return kept and recycled tokens together."""
        stages, left = [], num_visual_tokens
        for layer, published in zip(self.layers, PUBLISHED[self.tokens], strict=True):
            kept = min(left, max(1, round(published * num_visual_tokens / PUBLISHED_TOKENS)))
            left = kept + self._num_recycled(left - kept)
            stages.append(Stage(layer, left))
        return tuple(stages)

    def merge(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Merged:
        """Merge with weights of 1 for kept tokens, of 1 / size for clusters."""
        total = len(visual_tokens)
        order = ranked(self._scores(visual_tokens, context))
        num_kept = self._num_kept(total, num_keep)
        weights = torch.eye(total, device=order.device)
        if num_kept == num_keep:
            return merged(weights[order[:num_keep]], order[:num_keep])
        candidates = order[num_kept : num_kept + num_candidates(total - num_kept)].sort().values
        found = clusters(visual_tokens[candidates], num_keep - num_kept)
        mean = torch.zeros(num_keep - num_kept, total, device=order.device)
        mean[found.members, candidates] = 1.0
        anchors = torch.cat([order[:num_kept], candidates[found.centres]])
        return merged(torch.cat([weights[order[:num_kept]], mean / mean.sum(dim=1, keepdim=True)]), anchors)

    def _scores(self, visual_tokens: Tensor, context: ItemContext) -> Tensor:
        """(M,) attention from the raters."""
        attention = given(context, "text_attention", self.name)
        text = given(context, "text_embeddings", self.name)
        images = given(context, "input_tokens", self.name).to(text.device, text.dtype)
        if not len(text):
            raise ValueError(
                f"the prompt must hold text for method {self.name!r}, whose words rate the visual tokens; got none: "
                "ask something about the image, or choose a method that is not query-aware"
            )
        rating = raters(images, text).to(attention.device)
        return attention[:, rating].mean(dim=(0, 1)).to(visual_tokens.device)

    def _num_recycled(self, num_dropped: int) -> int:
        """Count how many clusters are made of the best of `num_dropped` tokens."""
        return num_candidates(num_dropped) // 10 + 1 if self.recycle and num_dropped else 0

    def _num_kept(self, total: int, num_keep: int) -> int:
        """Count how many of `num_keep` are kept by their score: the most that leave room for what is recycled then.

        Where even one would leave more to recycle than there is room for, nothing is recycled.
        """
        counts = range(num_keep, 0, -1)
        return next((kept for kept in counts if kept + self._num_recycled(total - kept) == num_keep), num_keep)


def raters(visual_tokens: Tensor, text: Tensor) -> Tensor:
    """Return the ascending indices of the text tokens (T, d) that visual tokens (M, d) resemble more than the mean."""
    resemblance = (visual_tokens @ text.mT).softmax(dim=-1).mean(dim=0)
    above = torch.nonzero(resemblance > resemblance.mean()).squeeze(1)
    return above if len(above) else torch.arange(len(text), device=text.device)


def num_candidates(num_dropped: int) -> int:
    """Return how many of `num_dropped` tokens are recycled."""
    return min(num_dropped, int(0.3 * num_dropped) + 1)
