"""PruMerge and PruMerge+: keep what the CLS token attends to, and merge the rest into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from divprune.lazy_torch import torch
from divprune.methods.base import Count, Fidelity, Paper
from divprune.methods.item_context import ItemContext, Need, given
from divprune.methods.merging import Merged, MergingMethod, merged, unmerged
from divprune.methods.scores import importance, picked_by, ranked
from divprune.selection.distances import cosine_similarities

if TYPE_CHECKING:
    from torch import Tensor

NEIGHBOURS = 32


@dataclass(frozen=True)
class PruMerge(MergingMethod):
    """Tokens that the vision encoder's CLS token attends to, each with its most similar others merged in.

    a = CLS row of softmax(q k^T / sqrt(C)) in the last layer, over whole queries and keys. The kept are the highest in
    a; x_i becomes x_i + sum over its 32 nearest others j (cosine of keys) of a_j x_j, without normalisation; one more
    token is the sum of a_j x_j over all that were dropped. Before the projector, on the features that it reads.
    Its own count, per image: the a_i above Q3 + 1.5 IQR (quartiles of a), and the extra token. With `num_keep`, the
    extra token is one of them. Deviations: quartiles of each image, not of the batch; order by anchor, not by
    attention; the extra token stands in the place of the most attended dropped one.

    Y. Shang, M. Cai, B. Xu, Y. J. Lee, Y. Yan, "LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal
    Models", ICCV 2025, https://arxiv.org/abs/2403.15388
    """

    name: ClassVar[str] = "prumerge"
    paper: ClassVar[Paper | None] = Paper(
        title="LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal Models",
        year=2025,
        url="https://arxiv.org/abs/2403.15388",
        citation="Shang, Cai, Xu, Lee, Yan, ICCV 2025",
    )
    fidelity: ClassVar[Fidelity] = "documented"
    count: ClassVar[Count] = "adaptive"
    needs: ClassVar[frozenset[Need]] = frozenset({"vision_attention", "vision_keys", "patch_features"})
    vision_layer: ClassVar[int] = -1
    joins_heads: ClassVar[bool] = True
    merges: ClassVar[Literal["patch_features", "visual_tokens"]] = "patch_features"

    def adaptive_count(self, visual_tokens: Tensor, context: ItemContext) -> int:
        return min(len(visual_tokens), len(self.outstanding(importance(context, self.name))) + 1)

    def merge(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Merged:
        attention = importance(context, self.name)
        total = len(attention)
        if num_keep == total:
            return unmerged(total, attention.device)
        kept = self.outstanding(attention)
        if len(kept) + 1 != num_keep:
            kept = self.highest(attention, num_keep - 1)
        keys = given(context, "vision_keys", self.name).transpose(0, 1).flatten(1)
        weights = _nearest_added(cosine_similarities(keys.unsqueeze(0))[0], attention, kept)
        dropped = torch.ones(total, dtype=torch.bool, device=kept.device).index_fill(0, kept, False)
        rest = torch.where(dropped, attention, 0.0)
        extra = attention.masked_fill(~dropped, -torch.inf).argmax()
        return merged(torch.cat([weights, rest.unsqueeze(0)]), torch.cat([kept, extra.unsqueeze(0)]))

    def outstanding(self, attention: Tensor) -> Tensor:
        """Return the indices of the tokens that an image keeps by its own attention (M,), at least one."""
        return ranked(attention)[: num_outliers(attention)]

    def highest(self, attention: Tensor, count: int) -> Tensor:
        """Return the indices of as many tokens as are asked for; 0 is possible."""
        return ranked(attention)[:count]


@dataclass(frozen=True)
class PruMergePlus(PruMerge):
    """PruMerge with evenly spaced tokens beside the attended ones.

    With r the fraction of attended tokens, those at every int(int(1 / r) / 3)-th place from 0 to M - 2 are kept too.
    Where more than a sixth of an image's tokens are attended that step is 1, and its own count is M: nothing is pruned
    without `num_keep`. With `num_keep`, a quarter of the kept are the most attended, which is the share that this rule
    tends to, and the others are spread evenly over the places between.

    Deviations, besides those of PruMerge: the paper has no rule for a given count; where its own count is M, tokens
    stay as they are and take in no neighbours.

    Y. Shang, M. Cai, B. Xu, Y. J. Lee, Y. Yan, "LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal
    Models", ICCV 2025, https://arxiv.org/abs/2403.15388
    """

    name: ClassVar[str] = "prumerge-plus"
    fidelity: ClassVar[Fidelity] = "documented"

    def outstanding(self, attention: Tensor) -> Tensor:
        total = len(attention)
        attended = super().outstanding(attention)
        step = max(1, int(total / len(attended)) // 3)
        kept = torch.zeros(total, dtype=torch.bool, device=attention.device)
        kept[: max(1, total - 1) : step] = True
        kept[attended] = True
        return picked_by(kept)

    def highest(self, attention: Tensor, count: int) -> Tensor:
        attended = ranked(attention)[: -(-count // 4)]
        free = torch.ones(len(attention), dtype=torch.bool, device=attention.device).index_fill(0, attended, False)
        places = picked_by(free)
        others = count - len(attended)
        steps = (2 * torch.arange(others, device=places.device) + 1) * len(places) // max(1, 2 * others)
        return torch.cat([attended, places[steps]])


def num_outliers(attention: Tensor) -> int:
    """Return how many of attention (M,) lie above Q3 + 1.5 IQR, at least 1."""
    values = attention.double()
    low, high = torch.quantile(values, 0.25), torch.quantile(values, 0.75)
    return max(1, int((values > high + 1.5 * (high - low)).sum()))


def _nearest_added(similarity: Tensor, attention: Tensor, kept: Tensor) -> Tensor:
    """Return (len(kept), M) weights: 1 for the token itself, a_j for each of its nearest others."""
    total = len(attention)
    similarity = similarity.clone().fill_diagonal_(-torch.inf)[kept]
    nearest = similarity.sort(dim=1, descending=True, stable=True).indices[:, : min(NEIGHBOURS, total - 1)]
    weights = torch.zeros(len(kept), total, device=attention.device)
    weights.scatter_(1, nearest, attention.float()[nearest])
    weights[torch.arange(len(kept), device=kept.device), kept] = 1.0
    return weights
