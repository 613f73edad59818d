"""Merging by bipartite matching, as in ToMe, down to a count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.lazy_torch import torch
from divprune.methods.base import Fidelity, Paper
from divprune.methods.item_context import ItemContext, Need, given
from divprune.methods.merging import Merged, MergingMethod
from divprune.methods.scores import ranked
from divprune.selection.distances import unit_rows

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ToMe(MergingMethod):
    """Token merging by bipartite matching, repeated on the visual tokens until `num_keep` are left.

    In each round the tokens at even places choose the most similar one at an odd place (cosine of the vision encoder's
    keys, mean over the heads), and the pairs of the highest similarity are merged, half of the tokens at most; a merged
    token is the average of all that went into it. Deviation: the paper merges a little in every layer of the vision
    encoder, with attention that knows the sizes; here everything is merged once, after the projector, with the keys of
    the last layer but one. A merged token stands in the place of the odd one.

    D. Bolya, C. Fu, X. Dai, P. Zhang, C. Feichtenhofer, J. Hoffman, "Token Merging: Your ViT But Faster", ICLR 2023,
    https://arxiv.org/abs/2210.09461
    """

    name: ClassVar[str] = "tome"
    paper: ClassVar[Paper | None] = Paper(
        title="Token Merging: Your ViT But Faster",
        year=2023,
        url="https://arxiv.org/abs/2210.09461",
        citation="Bolya, Fu, Dai, Zhang, Feichtenhofer, Hoffman, ICLR 2023",
    )
    fidelity: ClassVar[Fidelity] = "documented"
    needs: ClassVar[frozenset[Need]] = frozenset({"vision_keys"})

    def merge(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Merged:
        keys = given(context, "vision_keys", self.name).mean(dim=0)
        total = len(keys)
        members = torch.eye(total, dtype=keys.dtype, device=keys.device)  # (groups, M): who is in which group
        anchors = torch.arange(total, device=keys.device)
        while len(anchors) > num_keep:
            members, anchors = merge_pairs(members, anchors, keys, len(anchors) - num_keep)
        return Merged(_averages(members).float(), anchors)


def merge_pairs(members: Tensor, anchors: Tensor, keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Merge `count` pairs of groups, or as many as there are groups at even places with a partner.

    Args:
        members: (n, M) 0 or 1.
        anchors: (n,) int64, ascending.
        keys: (M, d) of the single tokens.
        count: At least 1.

    Returns:
        Members and anchors of the groups that are left, in the order of the anchors.
    """
    mean = unit_rows(_averages(members) @ keys)
    best = (mean[::2] @ mean[1::2].mT).max(dim=1)
    even = ranked(best.values)[: min(count, len(anchors) // 2)]
    source, target = 2 * even, 2 * best.indices[even] + 1
    members = members.index_add(0, target, members[source])
    left = torch.ones(len(anchors), dtype=torch.bool, device=anchors.device).index_fill(0, source, False)
    return members[left], anchors[left]


def _averages(members: Tensor) -> Tensor:
    return members / members.sum(dim=1, keepdim=True)
