"""VisionZip: dominant tokens by attention, contextual tokens by merging the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from divprune.lazy_torch import torch
from divprune.methods.base import Fidelity, Paper
from divprune.methods.item_context import ItemContext, Need, given
from divprune.methods.merging import Merged, MergingMethod, merged
from divprune.methods.scores import checked_number, importance, picked_by, ranked
from divprune.selection.distances import unit_rows

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class VisionZip(MergingMethod):
    """Dominant tokens by the CLS token's attention, and contextual ones that the rest is merged into.

    D dominant tokens stay as they are: the CLS token itself, which the language model then reads too, and the D - 1 of
    the highest attention in the vision encoder's last layer but one. Of the rest, C evenly spaced ones are targets;
    every other token goes to the target of the most similar key (mean over the heads, cosine), and a target becomes
    itself + the mean of what went to it. Before the projector. The paper's settings D + C are 54 + 10, 108 + 20 and
    162 + 30, one fraction of contextual tokens.

    The CLS token comes first. It takes the place of the item's first token; tokens that are kept from there on without
    a gap move one place on. Of an item of several tiles it is the first tile's, the whole image's in LLaVA-NeXT. Where
    the encoder has none or the projector needs several patches, and where every token is kept, all D are patches.
    Deviation: order by anchor, not dominant before contextual.

    S. Yang, Y. Chen, Z. Tian, C. Wang, J. Li, B. Yu, J. Jia, "VisionZip: Longer is Better but Not Necessary in Vision
    Language Models", CVPR 2025, https://arxiv.org/abs/2412.04467

    Attributes:
        contextual_share: Fraction of contextual tokens among the kept, in [0, 1]; C = round(share * num_keep).
        keeps_cls_token: Whether the CLS token is one of the dominant, where there is one.
    """

    name: ClassVar[str] = "visionzip"
    paper: ClassVar[Paper | None] = Paper(
        title="VisionZip: Longer is Better but Not Necessary in Vision Language Models",
        year=2025,
        url="https://arxiv.org/abs/2412.04467",
        citation="Yang, Chen, Tian, Wang, Li, Yu, Jia, CVPR 2025",
    )
    fidelity: ClassVar[Fidelity] = "documented"
    needs: ClassVar[frozenset[Need]] = frozenset({"vision_attention", "vision_keys", "patch_features"})
    merges: ClassVar[Literal["patch_features", "visual_tokens"]] = "patch_features"
    reads: ClassVar[frozenset[Need]] = frozenset({"cls_features"})
    contextual_share: float = 0.15625
    keeps_cls_token: bool = True

    def __post_init__(self) -> None:
        """Check the share."""
        checked_number("contextual_share", self.contextual_share, 0, 1)

    def merge(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Merged:
        attention = importance(context, self.name)
        total, num_contextual = len(attention), round(self.contextual_share * num_keep)
        num_dominant = num_keep - num_contextual
        can_have_cls_token = context.project is not None and context.cls_features is not None
        if not (self.keeps_cls_token and can_have_cls_token and num_dominant and num_keep < total):
            return merged(*self._weights(attention, num_dominant, num_contextual, context))
        return _with_cls_token(merged(*self._weights(attention, num_dominant - 1, num_contextual, context)))

    def _weights(
        self, attention: Tensor, num_dominant: int, num_contextual: int, context: ItemContext
    ) -> tuple[Tensor, Tensor]:
        """Return (k, M) weights and (k,) anchors of the dominant and contextual tokens."""
        total, num_keep = len(attention), num_dominant + num_contextual
        dominant = ranked(attention)[:num_dominant]
        rest = picked_by(torch.ones(total, dtype=torch.bool, device=dominant.device).index_fill(0, dominant, False))
        spaced = torch.arange(num_contextual, device=rest.device) * max(1, len(rest) // max(1, num_contextual))
        targets = rest[spaced]
        weights = torch.zeros(num_keep, total, device=attention.device)
        anchors = torch.cat([dominant, targets])
        if num_contextual:
            keys = unit_rows(given(context, "vision_keys", self.name).mean(dim=0))
            others = rest[~torch.isin(rest, targets)]
            goes_to = len(dominant) + (keys[others] @ keys[targets].mT).argmax(dim=1)
            weights[goes_to, others] = 1.0
            weights /= weights.sum(dim=1, keepdim=True).clamp(min=1)
        weights[torch.arange(num_keep, device=anchors.device), anchors] = 1.0
        return weights, anchors


def _with_cls_token(rest: Merged) -> Merged:
    """Put the CLS token before fewer merged tokens than there are, in the place of the item's first token.

    Tokens that stand there, and those that follow without a gap, move one place on.
    """
    anchors, (count, total) = rest.anchors, rest.weights.shape
    without_gap = anchors == torch.arange(count, device=anchors.device)
    of_cls_token = rest.weights.new_zeros(count + 1, total)
    of_cls_token[0, 0] = 1.0
    return Merged(
        weights=torch.cat([rest.weights.new_zeros(1, total), rest.weights]),
        anchors=torch.cat([anchors.new_zeros(1), anchors + without_gap.long()]),
        cls_weights=of_cls_token,
    )
