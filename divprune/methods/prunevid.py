"""PruneVid: static places averaged over time, then everything clustered in space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.lazy_torch import torch
from divprune.methods.base import Fidelity, Paper
from divprune.methods.holitom import left_tokens
from divprune.methods.item_context import ItemContext, Modality, Need, given
from divprune.methods.merging import Merged
from divprune.methods.scores import checked_number
from divprune.methods.shares import proportional_shares
from divprune.methods.token_groups import TokenGroups
from divprune.methods.two_stages import TwoStages
from divprune.methods.video import in_video, video_frames
from divprune.selection.density_peaks import centres_of
from divprune.selection.distances import full_precision, unit_rows
from divprune.selection.segments import segments_from_cuts
from divprune.selection.static_places import static_anchors, static_tokens

if TYPE_CHECKING:
    from torch import Tensor

FRAME_NEIGHBOURS = 7


@dataclass(frozen=True)
class PruneVid(TwoStages):
    """Video only: static places are averaged over a segment, then static and other tokens are clustered.

    The frames (their mean tokens) are clustered by density peaks (7 neighbours) to a quarter of their number, rounded
    down, at least 1; a segment is a run of frames of one cluster. A place is static in a segment if the cosine
    similarity of every two of its tokens there is above 0.8; they become their mean, in the segment's first frame.
    What is left is clustered to the same fraction everywhere, the static tokens of a segment together and the others of
    each frame (density peaks, 7 neighbours), each cluster becoming its mean.

    With a `layer` (the paper's is 10) that is the first stage, which in the paper merges to a half; from that layer on
    0.4 of the tokens stay, those that a token of the question attends to most in the layer before, on average over the
    heads. Deviations: fractions are rounded so that the number is the caller's; where
    averaging leaves fewer tokens than are to stay, only the most static places are averaged.

    X. Huang, H. Zhou, K. Han, "PruneVid: Visual Token Pruning for Efficient Video Large Language Models", Findings of
    ACL 2025, https://arxiv.org/abs/2412.16117

    Attributes:
        layer: decoder layer of the second stage; 0 for none.
        threshold: cosine similarity above which a place is static, in [-1, 1].
        segment_ratio: clusters of frames as a fraction of the frames, in [0, 1].
    """

    name: ClassVar[str] = "prunevid"
    paper: ClassVar[Paper | None] = Paper(
        title="PruneVid: Visual Token Pruning for Efficient Video Large Language Models",
        year=2025,
        url="https://arxiv.org/abs/2412.16117",
        citation="Huang, Zhou, Han, Findings of ACL 2025",
    )
    fidelity: ClassVar[Fidelity] = "documented"
    modalities: ClassVar[frozenset[Modality]] = frozenset({"video"})
    needs: ClassVar[frozenset[Need]] = frozenset({"grid"})
    layer_needs: ClassVar[frozenset[Need]] = frozenset({"text_attention"})
    kept_inside: ClassVar[float] = 0.4
    threshold: float = 0.8
    segment_ratio: float = 0.25

    def __post_init__(self) -> None:
        """Check layer, threshold and ratio."""
        super().__post_init__()
        checked_number("threshold", self.threshold, -1, 1)
        checked_number("segment_ratio", self.segment_ratio, 0, 1)

    def merge_before(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Merged:
        frames = video_frames(visual_tokens, context, self)
        segments = _segments(frames, max(1, int(self.segment_ratio * len(frames))))
        is_static = static_tokens(_closeness(frames, segments), self.threshold, segments, num_keep)
        averaged = TokenGroups.around(static_anchors(is_static, segments))
        sets = torch.cat(left_tokens(averaged, is_static))
        means = averaged.values(frames.flatten(0, 1)).view_as(frames)
        counts = proportional_shares(num_keep, sets.sum(dim=1))
        centres = centres_of(torch.cat([means, means]), counts, FRAME_NEIGHBOURS, sets)
        static, dynamic = (in_video(part) for part in centres.split(len(frames)))
        return averaged.then(TokenGroups.around(torch.maximum(static, dynamic))).merged()

    def attention_inside(self, context: ItemContext) -> Tensor:
        """Return (M,) the largest attention of a token of the question."""
        return given(context, "text_attention", self.name).mean(dim=0).amax(dim=0)


def _segments(frames: Tensor, num_clusters: int) -> Tensor:
    """(T,) segments: runs of frames (T, P, d) that fall into one of `num_clusters` clusters."""
    mean = frames.mean(dim=1, keepdim=True).transpose(0, 1)  # (1, T, d)
    clustered = centres_of(mean, torch.tensor([num_clusters], device=frames.device), FRAME_NEIGHBOURS)[0]
    return segments_from_cuts(clustered[1:] != clustered[:-1])


def _closeness(frames: Tensor, segments: Tensor) -> Tensor:
    """(S, P) the lowest cosine similarity of any two tokens at a place within a segment."""
    unit = unit_rows(frames).transpose(0, 1)  # (P, T, d)
    with full_precision(frames.device):
        similarity = unit @ unit.mT
    elsewhere = segments.unsqueeze(1) != segments
    lowest = similarity.masked_fill(elsewhere, torch.inf).amin(dim=2).mT  # (T, P)
    found = lowest.new_full((int(segments[-1]) + 1, frames.shape[1]), torch.inf)
    return found.scatter_reduce(0, segments.unsqueeze(1).expand_as(lowest), lowest, "amin")
