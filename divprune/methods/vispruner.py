"""VisPruner: half of the tokens by attention, half by weeding out duplicates."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from divprune.methods.base import ItemContext, Method, Need, Paper, given
from divprune.methods.scores import checked_number, importance, picked_by, ranked
from divprune.selection.distances import cosine_similarities

DROPPED_AT_ONCE = 8


@dataclass(frozen=True)
class VisPruner(Method):
    """Half of the tokens by the CLS token's attention, the other half diverse among the rest.

    From the rest, again and again, the tokens at even places are compared with those at odd places, and the (at most 8)
    even ones that are most similar to an odd one (cosine of the features before the projector) are dropped, until as
    many are left as are wanted. The order is the attended ones from the highest, then the diverse ones ascending.

    Q. Zhang, A. Cheng, M. Lu, R. Zhang, Z. Zhuo, J. Cao, S. Guo, Q. She, S. Zhang, "Beyond Text-Visual Attention:
    Exploiting Visual Cues for Effective Token Pruning in VLMs", ICCV 2025, https://arxiv.org/abs/2412.01818

    Attributes:
        important_ratio: Fraction of the kept tokens that go by attention, in [0, 1].
    """

    name: ClassVar[str] = "vispruner"
    paper: ClassVar[Paper | None] = Paper(
        title="Beyond Text-Visual Attention: Exploiting Visual Cues for Effective Token Pruning in VLMs",
        year=2025,
        url="https://arxiv.org/abs/2412.01818",
        citation="Zhang, Cheng, Lu, Zhang, Zhuo, Cao, Guo, She, Zhang, ICCV 2025",
    )
    needs: ClassVar[frozenset[Need]] = frozenset({"vision_attention", "patch_features"})
    important_ratio: float = 0.5

    def __post_init__(self) -> None:
        """Check the share."""
        checked_number("important_ratio", self.important_ratio, 0, 1)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        attention = importance(context, self.name)
        important = ranked(attention)[: int(self.important_ratio * num_keep)]
        left = torch.ones(len(attention), dtype=torch.bool, device=attention.device).index_fill(0, important, False)
        similarity = cosine_similarities(given(context, "patch_features", self.name).unsqueeze(0))[0]
        return torch.cat([important, diverse(similarity, picked_by(left), num_keep - len(important))])


def diverse(similarity: Tensor, left: Tensor, count: int) -> Tensor:
    """Drop tokens from `left` (n,) ascending, by `similarity` (M, M), until `count` are left."""
    while len(left) > count:
        even, odd = left[::2], left[1::2]
        if not len(odd):
            return left[:count]
        nearest = similarity[even.unsqueeze(1), odd].amax(dim=1)
        dropped = ranked(nearest)[: min(DROPPED_AT_ONCE, len(left) - count)]
        left = left[~torch.isin(left, even[dropped])]
    return left
