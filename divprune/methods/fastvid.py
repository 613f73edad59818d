"""FastVID: segments of a video, thinned by attention and by density."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.lazy_torch import torch
from divprune.methods.base import Fidelity, Paper
from divprune.methods.dart import shares
from divprune.methods.item_context import ItemContext, Modality, Need
from divprune.methods.merging import Merged, MergingMethod
from divprune.methods.scores import checked_number, importance
from divprune.methods.token_groups import DROPPED, TokenGroups
from divprune.methods.video import first_of, frame_similarity, video_frames
from divprune.selection.density_peaks import densest
from divprune.selection.distances import full_precision, unit_rows
from divprune.selection.segments import segment_lengths, segments_by_threshold

if TYPE_CHECKING:
    from torch import Tensor

SEGMENTS, CUT_BELOW = 8, 0.9
NEIGHBOURS_OF_DENSITY = 4
ANCHOR_FRAME_STEP = 4
ANCHOR_WEIGHT = 0.6


@dataclass(frozen=True)
class FastVID(MergingMethod):
    """Video only: in each segment the most attended tokens, and dense ones of every fourth frame that take in the rest.

    Cuts are the 7 lowest similarities (cosine of mean tokens) of neighbouring frames, and all below 0.9. Of n tokens a
    frame keeps, n - int(0.4 n) are those of the highest vision attention. The others of a segment are centres in every
    fourth of its frames, counted from its last: the tokens of the largest density (4 neighbours) times distance to a
    denser one. Every other token of the segment joins the most similar centre (cosine), which becomes w centre +
    (1 - w) mean of what joined, w = max(0.6, 1 / (their number + 1)).

    Deviations: the paper's frame features are those of the encoder's pooling head, and density is that among the tokens
    that attention left; n is the caller's number divided by the frames, one more for the first if it does not divide,
    and a segment's centres are dealt out likewise; where centres find no room, the most attended of all frames fill up.

    L. Shen, G. Gong, T. He, Y. Zhang, P. Liu, S. Zhao, G. Ding, "FastVID: Dynamic Density Pruning for Fast Video Large
    Language Models", NeurIPS 2025, https://arxiv.org/abs/2503.11187

    Attributes:
        dense_ratio: Fraction of the kept tokens that are centres, in [0, 1].
    """

    name: ClassVar[str] = "fastvid"
    paper: ClassVar[Paper | None] = Paper(
        title="FastVID: Dynamic Density Pruning for Fast Video Large Language Models",
        year=2025,
        url="https://arxiv.org/abs/2503.11187",
        citation="Shen, Gong, He, Zhang, Liu, Zhao, Ding, NeurIPS 2025",
    )
    fidelity: ClassVar[Fidelity] = "documented"
    modalities: ClassVar[frozenset[Modality]] = frozenset({"video"})
    needs: ClassVar[frozenset[Need]] = frozenset({"grid", "vision_attention"})
    vision_layer: ClassVar[int] = -1
    dense_ratio: float = 0.4

    def __post_init__(self) -> None:
        """Check the ratio."""
        checked_number("dense_ratio", self.dense_ratio, 0, 1)

    def merge(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Merged:
        frames = video_frames(visual_tokens, context, self)
        attention = importance(context, self.name).to(frames.device).view(frames.shape[:2])
        segments = segments_by_threshold(frame_similarity(frames), CUT_BELOW, SEGMENTS)
        budgets = torch.tensor(shares(num_keep, len(frames)), device=frames.device)
        num_dense = (budgets * self.dense_ratio).long()
        attended = first_of(attention.sort(dim=1, descending=True, stable=True).indices, budgets - num_dense)
        order = densest(frames, NEIGHBOURS_OF_DENSITY, ~attended)
        centres = first_of(order, _centres_by_frame(segments, num_dense)) & ~attended
        missing = num_keep - int(attended.sum() + centres.sum())
        spare = attention.masked_fill(attended | centres, -torch.inf).flatten()
        attended = attended.flatten().index_fill(0, spare.sort(descending=True, stable=True).indices[:missing], True)
        anchor_of = _nearest_centre(frames, centres.flatten(), segments)
        own = torch.arange(len(anchor_of), device=anchor_of.device)
        return TokenGroups.around(torch.where(attended, own, anchor_of), ANCHOR_WEIGHT).merged()


def _centres_by_frame(segments: Tensor, num_dense: Tensor) -> Tensor:
    """(T,) how many centres each frame has; `num_dense` (T,) are what its frames give to their segment."""
    counts = torch.zeros_like(num_dense)
    last = segment_lengths(segments).cumsum(dim=0) - 1
    for number, end in enumerate(last.tolist()):
        inside = (segments == number).nonzero().squeeze(1)
        anchors = inside[(end - inside) % ANCHOR_FRAME_STEP == 0]
        counts[anchors] = torch.tensor(shares(int(num_dense[inside].sum()), len(anchors)), device=counts.device)
    return counts


def _nearest_centre(frames: Tensor, centres: Tensor, segments: Tensor) -> Tensor:
    """(M,) the most similar of the centres (M,) bool in each token's segment, `DROPPED` where there is none."""
    unit, numbers = unit_rows(frames.flatten(0, 1)), centres.nonzero().squeeze(1)
    own = torch.arange(len(unit), device=unit.device)
    if not len(numbers):
        return torch.full_like(own, DROPPED)
    segment_of = segments.repeat_interleave(frames.shape[1])
    with full_precision(unit.device):
        similarity = unit @ unit[numbers].mT
    elsewhere = segment_of.unsqueeze(1) != segment_of[numbers]
    best = similarity.masked_fill(elsewhere, -torch.inf).max(dim=1)
    return torch.where(centres, own, torch.where(best.values.isfinite(), numbers[best.indices], DROPPED))
