"""HoliTom: static places averaged over time, then merged in space; the rest by attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.lazy_torch import torch
from divprune.methods.base import Fidelity, Paper
from divprune.methods.item_context import ItemContext, Modality, Need
from divprune.methods.merging import Merged
from divprune.methods.scores import checked_number, importance
from divprune.methods.shares import proportional_shares
from divprune.methods.token_groups import TokenGroups, nearest_kept
from divprune.methods.two_stages import TwoStages
from divprune.methods.video import first_of, in_video, place_similarity, video_frames
from divprune.selection.density_peaks import centres_of
from divprune.selection.segments import segments_by_static_places
from divprune.selection.static_places import lowest_in_segments, static_anchors, static_tokens

if TYPE_CHECKING:
    from torch import Tensor

NEIGHBOURS_OF_STATIC = 7
STATIC_ANCHOR_WEIGHT = 0.6


@dataclass(frozen=True)
class HoliTom(TwoStages):
    """Video only: static places are averaged over a segment and clustered, of the others the most attended stay.

    A place is static between two frames if the cosine similarity of its tokens is above 0.8. Segments maximise the sum
    of (places static through the segment) x (frames - 1); the tokens of such a place become their mean, in the
    segment's first frame. What is left is reduced to the same fraction everywhere: the static tokens of a segment by
    density peaks (7 neighbours), a centre becoming 0.6 centre + 0.4 mean of what joined it, the others of each frame to
    those of the highest vision attention.

    With a `layer` (the paper's is 18) that is the first stage; at that layer the half of the tokens with the least
    attention from the prompt's last token, in the layer before, joins the most similar of the others (cosine of the
    hidden states), which become the mean. Deviations: fractions are rounded so that the number is the caller's; where
    averaging leaves fewer tokens than are to stay, only the most static places are averaged.

    K. Shao, K. Tao, C. Qin, H. You, Y. Sui, H. Wang, "HoliTom: Holistic Token Merging for Fast Video Large Language
    Models", NeurIPS 2025, https://arxiv.org/abs/2505.21334

    Attributes:
        layer: decoder layer of the second stage; 0 for none.
        threshold: cosine similarity above which a place is static, in [-1, 1].
    """

    name: ClassVar[str] = "holitom"
    paper: ClassVar[Paper | None] = Paper(
        title="HoliTom: Holistic Token Merging for Fast Video Large Language Models",
        year=2025,
        url="https://arxiv.org/abs/2505.21334",
        citation="Shao, Tao, Qin, You, Sui, Wang, NeurIPS 2025",
    )
    fidelity: ClassVar[Fidelity] = "documented"
    modalities: ClassVar[frozenset[Modality]] = frozenset({"video"})
    needs: ClassVar[frozenset[Need]] = frozenset({"grid", "vision_attention"})
    vision_layer: ClassVar[int] = -1
    kept_inside: ClassVar[float] = 0.5
    threshold: float = 0.8

    def __post_init__(self) -> None:
        """Check layer and threshold."""
        super().__post_init__()
        checked_number("threshold", self.threshold, -1, 1)

    def merge_before(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Merged:
        frames = video_frames(visual_tokens, context, self)
        attention = importance(context, self.name).to(frames.device).view(frames.shape[:2])
        similarity = place_similarity(frames)
        segments = segments_by_static_places(similarity > self.threshold)
        is_static = static_tokens(lowest_in_segments(similarity, segments), self.threshold, segments, num_keep)
        averaged = TokenGroups.around(static_anchors(is_static, segments))
        static, dynamic = left_tokens(averaged, is_static)
        counts = proportional_shares(num_keep, torch.cat([static, dynamic]).sum(dim=1))
        num_static, num_dynamic = counts.split(len(frames))
        means = averaged.values(frames.flatten(0, 1)).view_as(frames)
        clustered = in_video(centres_of(means, num_static, NEIGHBOURS_OF_STATIC, static))
        ranked_tokens = attention.masked_fill(~dynamic, -1.0).sort(dim=1, descending=True, stable=True).indices
        attended = first_of(ranked_tokens, num_dynamic).flatten()
        own = torch.arange(len(attended), device=attended.device)
        anchor_of = torch.where(attended, own, clustered)
        return averaged.then(TokenGroups.around(anchor_of, STATIC_ANCHOR_WEIGHT)).merged()

    def merge_inside(self, visual_tokens: Tensor, kept: Tensor) -> Merged:
        """Return the means of the kept tokens and of those that are most similar to them."""
        mask = torch.zeros(len(visual_tokens), dtype=torch.bool, device=visual_tokens.device)
        return TokenGroups.around(nearest_kept(visual_tokens, mask.index_fill(0, kept.to(mask.device), True))).merged()


def left_tokens(averaged: TokenGroups, is_static: Tensor) -> tuple[Tensor, Tensor]:
    """Return the tokens (T, P) bool that stand for a static place of their segment, and those that are not static."""
    own = torch.arange(is_static.numel(), device=is_static.device)
    left = (averaged.anchor_of == own).view_as(is_static)
    return left & is_static, ~is_static
