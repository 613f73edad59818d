"""PACT: unimportant tokens are dropped and the others clustered, inside the LLM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from divprune.lazy_torch import torch
from divprune.methods.base import Count, Fidelity, Paper, checked_layer
from divprune.methods.item_context import ItemContext, Need, given
from divprune.methods.merging import Merged, MergingMethod
from divprune.methods.scores import checked_number, ranked
from divprune.methods.token_groups import DROPPED, TokenGroups
from divprune.selection.bounded_clusters import bounded_centres, distances_to_denser
from divprune.selection.distances import cosine_similarities, full_precision

if TYPE_CHECKING:
    from torch import Tensor

RECOVERED_WITHIN = 1.5
"""Times the cutoff."""


@dataclass(frozen=True)
class PACT(MergingMethod):
    """Tokens that matter by query, key and norm, clustered by their keys within a bounded distance.

    Importance is softmax over the visual tokens of (their mean query . key), averaged over the heads, times the norm of
    the hidden state; 0.55 of the tokens stay. Of these a centre is one farther than the cutoff (cosine distance of
    keys) from every denser one; the others join the nearest centre within the cutoff, and what is within no cutoff of
    one is clustered again. Dropped tokens within 1.5 times the cutoff of a centre join it too. A cluster becomes its
    mean. So the number of tokens is the method's own; if the caller says k, the k tokens farthest from any denser one
    are the centres, of max(k, 0.55 M) important tokens, all of which join the nearest.

    Deviation: attention does not grow with the logarithm of a cluster's size. Queries and keys are of the layer that
    the tokens are about to enter. Choices where the paper leaves one: query . key is divided by sqrt(d_head), keys are
    compared with all heads together, density is the sum of exp(-distance / 2).

    M. Dhouib, D. Buscaldi, S. Vanier, A. Shabou, "PACT: Pruning and Clustering-Based Token Reduction for Faster Visual
    Language Models", CVPR 2025, https://arxiv.org/abs/2504.08966

    Attributes:
        layer: where tokens are dropped, at least 1; the paper's default is 4.
        important_ratio: Fraction of the tokens that are important, in [0, 1].
        cutoff: largest cosine distance of a member to its centre, in [0, 2].
    """

    name: ClassVar[str] = "pact"
    acts: ClassVar[str] = "inside the LLM"
    paper: ClassVar[Paper | None] = Paper(
        title="PACT: Pruning and Clustering-Based Token Reduction for Faster Visual Language Models",
        year=2025,
        url="https://arxiv.org/abs/2504.08966",
        citation="Dhouib, Buscaldi, Vanier, Shabou, CVPR 2025",
    )
    fidelity: ClassVar[Fidelity] = "documented"
    count: ClassVar[Count] = "adaptive"
    needs: ClassVar[frozenset[Need]] = frozenset({"visual_query", "keys"})
    decoder_layer: ClassVar[Literal["before", "entering"]] = "entering"
    layer: int = 4
    important_ratio: float = 0.55
    cutoff: float = 0.21

    def __post_init__(self) -> None:
        """Check the layer, the fraction and the cutoff."""
        checked_layer(self.layer, 1)
        checked_number("important_ratio", self.important_ratio, 0, 1)
        checked_number("cutoff", self.cutoff, 0, 2)

    @property
    def layers(self) -> tuple[int, ...]:
        return (self.layer,)

    def adaptive_count(self, visual_tokens: Tensor, context: ItemContext) -> int:
        important, distance = self._important(visual_tokens, context, 0)
        return int(bounded_centres(distance[important][:, important], self.cutoff).sum())

    def merge(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Merged:
        important, distance = self._important(visual_tokens, context, num_keep)
        among = distance[important][:, important]
        centres = bounded_centres(among, self.cutoff)
        farthest = ranked(distances_to_denser(among))[:num_keep]
        if int(centres.sum()) != num_keep:
            centres = torch.zeros_like(centres).index_fill(0, farthest, True)
        numbers = important[centres]
        nearest = distance[:, numbers].min(dim=1)
        joins = nearest.values <= RECOVERED_WITHIN * self.cutoff
        anchor_of = torch.where(joins.index_fill(0, important, True), numbers[nearest.indices], DROPPED)
        return TokenGroups.around(anchor_of.index_copy(0, numbers, numbers)).merged()

    def _important(self, visual_tokens: Tensor, context: ItemContext, lowest: int) -> tuple[Tensor, Tensor]:
        """Return the ascending important tokens, at least `lowest`, and the distances (M, M) of all keys."""
        keys = given(context, "keys", self.name).to(visual_tokens.device)
        query = given(context, "visual_query", self.name).to(keys)
        # Several heads of the query share a head of the keys.
        groups = query.unflatten(0, (len(keys), -1))
        with full_precision(keys.device):
            logits = groups @ keys.mT / keys.shape[-1] ** 0.5
        norm = torch.linalg.vector_norm(visual_tokens.to(logits.dtype), dim=-1)
        importance = logits.softmax(dim=-1).mean(dim=(0, 1)) * norm
        count = max(1, lowest, int(self.important_ratio * len(visual_tokens)))
        whole = keys.transpose(0, 1).flatten(1).unsqueeze(0)
        return ranked(importance)[:count].sort().values, 1 - cosine_similarities(whole)[0]
