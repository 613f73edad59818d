"""HoloV: every part of an image keeps a number of tokens of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.lazy_torch import torch
from divprune.methods.base import Fidelity, Method, Paper
from divprune.methods.item_context import ItemContext, Need
from divprune.methods.scores import importance, ranked
from divprune.methods.shares import weighted_shares
from divprune.selection.distances import cosine_similarities

if TYPE_CHECKING:
    from torch import Tensor

RUNS = 16
ATTENTION_SCALE, VARIANCE_WEIGHT = 1000.0, 0.09


@dataclass(frozen=True)
class HoloV(Method):
    """The most attended tokens of each of 16 parts, whose shares go by attention and by how varied they are.

    The tokens are cut into 16 contiguous runs. With a the CLS token's attention and v the variance of a token's cosine
    similarities to the tokens of its run, its score is 1000 a + 0.09 v mean|1000 a| / mean|v|. A run's share of the
    kept tokens is its mean score / the sum of these, rounded down; what remains goes one each to the largest. Within a
    run the highest a stay; a run with fewer tokens than its share passes the rest on, to the largest that have room.
    The order is run by run. Choices where the paper leaves one: v is the mean squared deviation, the token itself
    included; runs are equally long, the first longer by one token where the number does not divide.

    X. Zou, D. Lu, Y. Wang, Y. Yan, Y. Lyu, X. Zheng, L. Zhang, X. Hu, "Don't Just Chase 'Highlighted Tokens' in MLLMs:
    Revisiting Visual Holistic Context Retention", NeurIPS 2025, https://arxiv.org/abs/2510.02912
    """

    name: ClassVar[str] = "holov"
    paper: ClassVar[Paper | None] = Paper(
        title="Don't Just Chase 'Highlighted Tokens' in MLLMs: Revisiting Visual Holistic Context Retention",
        year=2025,
        url="https://arxiv.org/abs/2510.02912",
        citation="Zou, Lu, Wang, Yan, Lyu, Zheng, Zhang, Hu, NeurIPS 2025",
    )
    fidelity: ClassVar[Fidelity] = "unverified"
    needs: ClassVar[frozenset[Need]] = frozenset({"vision_attention"})

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select run by run; the loop is over the 16 runs."""
        attention = importance(context, self.name).to(visual_tokens.device).double()
        runs = torch.arange(len(attention), device=attention.device).tensor_split(min(RUNS, len(attention)))
        variances = [_variances(visual_tokens[run]) for run in runs]
        scaled, variance = ATTENTION_SCALE * attention, torch.cat(variances)
        mean = variance.mean()
        scores = scaled + torch.where(mean > 0, VARIANCE_WEIGHT * variance * scaled.abs().mean() / mean, 0.0)
        weights = torch.stack([scores[run].mean() for run in runs])
        sizes = torch.tensor([len(run) for run in runs], device=weights.device)
        counts = weighted_shares(num_keep, weights, sizes).tolist()
        return torch.cat([run[ranked(attention[run])[:count]] for run, count in zip(runs, counts, strict=True)])


def _variances(tokens: Tensor) -> Tensor:
    """(n,) float64 variances of the similarities of each of n tokens (n, d) to all of them."""
    return cosine_similarities(tokens.unsqueeze(0))[0].double().var(dim=1, correction=0)
