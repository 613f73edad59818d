"""VisPruner: half of the tokens by attention, half by weeding out duplicates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.lazy_torch import torch
from divprune.methods.base import Fidelity, Method, Paper
from divprune.methods.item_context import ItemContext, Need, given
from divprune.methods.scores import checked_number, importance, ranked
from divprune.selection.distances import cosine_similarities

if TYPE_CHECKING:
    from torch import Tensor

DROPPED_AT_ONCE = 8


@dataclass(frozen=True)
class VisPruner(Method):
    """Half of the tokens by the CLS token's attention, the other half diverse among the rest.

    The rest is a list, from the highest attention down. Again and again, the tokens at its even places (0, 2, ...) are
    compared with those at odd ones, and the (at most 8) even ones that are most similar to an odd one (cosine of the
    features before the projector) are dropped, until as many are left as are wanted; the next list is the even ones
    left, the most similar first, then the odd ones.

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
    fidelity: ClassVar[Fidelity] = "unverified"
    needs: ClassVar[frozenset[Need]] = frozenset({"vision_attention", "patch_features"})
    important_ratio: float = 0.5

    def __post_init__(self) -> None:
        """Check the share."""
        checked_number("important_ratio", self.important_ratio, 0, 1)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        attention = importance(context, self.name)
        order, num_important = ranked(attention), int(self.important_ratio * num_keep)
        similarity = cosine_similarities(given(context, "patch_features", self.name).unsqueeze(0))[0]
        rest = diverse(similarity, order[num_important:].to(similarity.device), num_keep - num_important)
        return torch.cat([order[:num_important].to(rest.device), rest])


def diverse(similarity: Tensor, left: Tensor, count: int) -> Tensor:
    """Drop tokens from the list `left` (n,), by `similarity` (M, M), until `count` are left.

    A loop over rounds of at most 8 dropped tokens: the next list follows from the last.
    """
    while len(left) > count:
        even, odd = left[::2], left[1::2]
        if not len(odd):
            return left[:count]
        falling = even[ranked(similarity[even.unsqueeze(1), odd].amax(dim=1))]
        left = torch.cat([falling[min(DROPPED_AT_ONCE, len(left) - count) :], odd])
    return left
