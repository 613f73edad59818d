"""AgilePruner: attention order, with a threshold on likeness that follows the image's diversity."""

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

THRESHOLD_STEP = 0.01


@dataclass(frozen=True)
class AgilePruner(Method):
    """Tokens in the order of attention, without those too like an earlier one; the more diverse the image, the fewer.

    Tokens are visited from the highest attention down, order = 1, 2, ... being the rank; a visited one is kept, and all
    others within cosine distance tau = min(tau_max, 0.01 * order * erank / erank_avg) of it go unvisited. erank is the
    effective rank of the features before the projector: exp of the entropy of their singular values, normalised
    to a sum of 1. What is missing at the end is filled up by attention. Deviation: erank_avg and tau_max are ours.

    Baek, Song, Kim, Kong, "AgilePruner: An Empirical Study of Attention and Diversity for Adaptive Visual Token Pruning
    in Large Vision-Language Models", ICLR 2026, https://arxiv.org/abs/2603.01236

    Attributes:
        average_rank: erank_avg, the effective rank of an average image. It depends on the encoder; the default is
            ours.
        largest_threshold: tau_max, in [0, 2]; the default is ours.
    """

    name: ClassVar[str] = "agilepruner"
    nested: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper(
        title="AgilePruner: An Empirical Study of Attention and Diversity for Adaptive Visual Token "
        "Pruning in Large Vision-Language Models",
        year=2026,
        url="https://arxiv.org/abs/2603.01236",
        citation="Baek, Song, Kim, Kong, ICLR 2026",
    )
    fidelity: ClassVar[Fidelity] = "documented"
    needs: ClassVar[frozenset[Need]] = frozenset({"vision_attention", "patch_features"})
    average_rank: float = 100.0
    largest_threshold: float = 0.5

    def __post_init__(self) -> None:
        """Check the parameters."""
        checked_number("average_rank", self.average_rank, 1)
        checked_number("largest_threshold", self.largest_threshold, 0, 2)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the visited ones first, then those that fill up."""
        features = given(context, "patch_features", self.name)
        step = THRESHOLD_STEP * effective_rank(features) / self.average_rank
        order = ranked(importance(context, self.name))
        distance = 1 - cosine_similarities(features[order].unsqueeze(0))[0]
        left = torch.ones(len(order), dtype=torch.bool, device=order.device)
        kept: list[int] = []
        while len(kept) < num_keep and bool(left.any()):
            visited = int(left.int().argmax())
            kept.append(visited)
            left &= distance[visited] >= min(self.largest_threshold, step * (visited + 1))
            left[visited] = False
        chosen = frozenset(kept)
        passed = (place for place in range(len(order)) if place not in chosen)
        return order[torch.tensor([*kept, *passed][:num_keep], device=order.device)]


def effective_rank(features: Tensor) -> float:
    """Return exp of the entropy of the normalised singular values of features (M, d)."""
    values = torch.linalg.svdvals(features.double())
    shares = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    return float(torch.special.entr(shares).sum().exp())
