"""VisionZip: dominant tokens by attention, contextual tokens by merging the rest."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from divprune.methods.base import ItemContext, Need, Paper, given
from divprune.methods.merging import Merged, MergingMethod, merged
from divprune.methods.scores import checked_number, importance, picked_by, ranked
from divprune.selection.distances import unit_rows


@dataclass(frozen=True)
class VisionZip(MergingMethod):
    """Dominant tokens by the CLS token's attention, and contextual ones that the rest is merged into.

    The D tokens of the highest attention in the vision encoder's last layer but one stay as they are. Of the rest, C
    evenly spaced ones are targets; every other token goes to the target of the most similar key (mean over the heads,
    cosine), and a target becomes itself + the mean of what went to it. Before the projector. The paper's settings
    D + C are 54 + 10, 108 + 20 and 162 + 30, one fraction of contextual tokens. Deviations: the CLS token itself is not
    kept, as LLaVA does not read it; order by anchor, not dominant before contextual.

    S. Yang, Y. Chen, Z. Tian, C. Wang, J. Li, B. Yu, J. Jia, "VisionZip: Longer is Better but Not Necessary in Vision
    Language Models", CVPR 2025, https://arxiv.org/abs/2412.04467

    Attributes:
        contextual_share: Fraction of contextual tokens among the kept, in [0, 1]; C = round(share * num_keep).
    """

    name: ClassVar[str] = "visionzip"
    paper: ClassVar[Paper | None] = Paper(
        title="VisionZip: Longer is Better but Not Necessary in Vision Language Models",
        year=2025,
        url="https://arxiv.org/abs/2412.04467",
        citation="Yang, Chen, Tian, Wang, Li, Yu, Jia, CVPR 2025",
    )
    needs: ClassVar[frozenset[Need]] = frozenset({"vision_attention", "vision_keys", "patch_features"})
    merges: ClassVar[Literal["patch_features", "visual_tokens"]] = "patch_features"
    contextual_share: float = 0.15625

    def __post_init__(self) -> None:
        """Check the share."""
        checked_number("contextual_share", self.contextual_share, 0, 1)

    def merge(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Merged:
        attention = importance(context, self.name)
        total, num_contextual = len(attention), round(self.contextual_share * num_keep)
        dominant = ranked(attention)[: num_keep - num_contextual]
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
        return merged(weights, anchors)
