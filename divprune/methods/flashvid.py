"""FlashVID: attended and diverse tokens of each frame, and trees of the others through time."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, ClassVar

from divprune.lazy_torch import torch
from divprune.methods.base import Fidelity, Paper
from divprune.methods.dart import shares
from divprune.methods.item_context import ItemContext, Modality, Need
from divprune.methods.merging import Merged
from divprune.methods.scores import checked_number, importance
from divprune.methods.shares import proportional_shares
from divprune.methods.token_groups import TokenGroups
from divprune.methods.two_stages import TwoStages
from divprune.methods.video import frame_similarity, in_video, video_frames
from divprune.selection.density_peaks import centres_of
from divprune.selection.distances import cosine_similarities, full_precision, unit_rows
from divprune.selection.greedy import greedy_picks
from divprune.selection.objectives import Dispersion
from divprune.selection.segments import segments_by_threshold

if TYPE_CHECKING:
    from torch import Tensor

LEAST_SEGMENTS, CUT_SIMILARITY = 8, 0.9
MOST_NEIGHBOURS = 7


@dataclass(frozen=True)
class FlashVID(TwoStages):
    """Video only: attended and diverse tokens of each frame stay, the others are merged along trees through time.

    Of a frame's budget B, ceil(0.7 B) tokens are chosen by max-min greedy on d_ij = (1 - cosine_ij) a_j, the distance
    of candidate j weighted by its vision attention; the first is argmax_j of the second smallest d_ij over i. Cuts
    between frames lie where the cosine of their mean tokens is below 0.9, at the lowest until there are 8 segments. In
    a segment each token that was not chosen is linked to the most similar one of the frame before, if their cosine is
    above 0.8, and the tokens of a tree become their mean, in its first frame. What then is left is clustered in each
    frame by density peaks (as many neighbours as clusters, at most 7), a cluster becoming its mean.

    With a `layer` (the paper's is 20, of 28) that is the first stage, which has 1.25 times the tokens that the caller
    asks for; from that layer on 0.3 of them stay, those of the highest attention from the prompt's last token in the
    layer before. Deviations: B is the caller's number divided by the frames, one more for the first if it does not
    divide; the threshold of 0.8 rises so far that links leave as many tokens as are to stay; clusters are shared among
    the frames in proportion to what is left of them.

    Z. Fan, K. Chen, R. Xing, Y. Li, L. Jiang, Z. Tian, "FlashVID: Efficient Video Large Language Models via
    Training-free Tree-based Spatiotemporal Token Merging", ICLR 2026, https://arxiv.org/abs/2602.08024

    Attributes:
        layer: decoder layer of the second stage; 0 for none.
        chosen_ratio: Fraction of a frame's budget that is chosen by attention and diversity, in [0, 1].
        threshold: cosine similarity above which tokens of neighbouring frames are linked, in [-1, 1].
    """

    name: ClassVar[str] = "flashvid"
    paper: ClassVar[Paper | None] = Paper(
        title="FlashVID: Efficient Video Large Language Models via Training-free Tree-based Spatiotemporal Token "
        "Merging",
        year=2026,
        url="https://arxiv.org/abs/2602.08024",
        citation="Fan, Chen, Xing, Li, Jiang, Tian, ICLR 2026",
    )
    fidelity: ClassVar[Fidelity] = "documented"
    modalities: ClassVar[frozenset[Modality]] = frozenset({"video"})
    needs: ClassVar[frozenset[Need]] = frozenset({"grid", "vision_attention"})
    vision_layer: ClassVar[int] = -1
    budget_ratio: ClassVar[float] = 1.25
    kept_inside: ClassVar[float] = 0.3
    chosen_ratio: float = 0.7
    threshold: float = 0.8

    def __post_init__(self) -> None:
        """Check layer, ratio and threshold."""
        super().__post_init__()
        checked_number("chosen_ratio", self.chosen_ratio, 0, 1)
        checked_number("threshold", self.threshold, -1, 1)

    def merge_before(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Merged:
        frames = video_frames(visual_tokens, context, self)
        attention = importance(context, self.name).to(frames.device).view(frames.shape[:2])
        # Rounded, so that 0.7 of ten is seven on every machine.
        counts = [ceil(round(self.chosen_ratio * budget, 9)) for budget in shares(num_keep, len(frames))]
        chosen = _chosen(frames, attention, torch.tensor(counts, device=frames.device))
        num_clusters = num_keep - int(chosen.sum())
        segments = segments_by_threshold(frame_similarity(frames), CUT_SIMILARITY, LEAST_SEGMENTS)
        roots = _roots(frames, chosen, segments, self.threshold, num_clusters)
        trees = TokenGroups.around(roots)
        own = torch.arange(len(roots), device=roots.device)
        left = (roots == own).view_as(chosen) & ~chosen
        by_frame = proportional_shares(num_clusters, left.sum(dim=1))
        means = trees.values(frames.flatten(0, 1)).view_as(frames)
        clustered = in_video(centres_of(means, by_frame, by_frame.clamp(max=MOST_NEIGHBOURS), left))
        return trees.then(TokenGroups.around(torch.where(chosen.flatten(), own, clustered))).merged()


def _chosen(frames: Tensor, attention: Tensor, counts: Tensor) -> Tensor:
    """(T, P) bool, the first `counts` (T,) picks in each frame (T, P, d) by distance and attention (T, P)."""
    distance = (1 - cosine_similarities(frames)).clamp(min=0) * attention.to(frames.dtype).unsqueeze(1)
    most = int(counts.max())
    if not most:
        return torch.zeros_like(attention, dtype=torch.bool)
    picks = greedy_picks(Dispersion(distance), most)
    taken = torch.arange(most, device=picks.device) < counts.unsqueeze(1)
    return torch.zeros_like(attention, dtype=torch.bool).scatter(1, picks, taken)


def _roots(frames: Tensor, chosen: Tensor, segments: Tensor, threshold: float, num_left: int) -> Tensor:
    """(M,) the token of an earlier frame at the root of each token's tree; chosen ones are their own.

    At least `num_left` roots are left that are not chosen.
    """
    roots = torch.arange(chosen.numel(), device=frames.device).view_as(chosen)
    if len(frames) == 1:
        return roots.flatten()
    unit = unit_rows(frames)
    with full_precision(frames.device):
        similarity = (unit[1:] @ unit[:-1].mT).masked_fill(chosen[:-1].unsqueeze(1), -torch.inf)
    best = similarity.max(dim=2)
    linked = (best.values > threshold) & ~chosen[1:] & (segments[1:] == segments[:-1]).unsqueeze(1)
    closest = best.values.masked_fill(~linked, -torch.inf).flatten().sort(descending=True, stable=True).indices
    most = int((~chosen).sum()) - num_left
    allowed = torch.zeros_like(linked).flatten().index_fill(0, closest[:most], True).view_as(linked)
    for number, (links, parents) in enumerate(zip(linked & allowed, best.indices, strict=True), start=1):
        roots[number] = torch.where(links, roots[number - 1].gather(0, parents), roots[number])
    return roots.flatten()
