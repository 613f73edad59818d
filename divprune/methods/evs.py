"""EVS: of a video, what changes from frame to frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.lazy_torch import torch
from divprune.methods.base import Fidelity, Method, Paper, require_modality
from divprune.methods.grids import grid_of
from divprune.methods.item_context import ItemContext, Modality, Need
from divprune.methods.scores import ranked
from divprune.selection.distances import full_precision, unit_rows

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EVS(Method):
    """Video only: the tokens that differ most from the one at the same place in the frame before.

    Cosine dissimilarity of visual tokens, largest first, ties in order; the first frame comes before everything else.
    Deviation: the count is the caller's, as for every method, so that less than the first frame may be kept; the paper
    keeps one frame's number of tokens at least.

    Bagrov, Khvedchenia, Tymchenko and 9 others, "Efficient Video Sampling: Pruning Temporally Redundant Tokens for
    Faster VLM Inference", 2025, https://arxiv.org/abs/2510.14624
    """

    name: ClassVar[str] = "evs"
    nested: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper(
        title="Efficient Video Sampling: Pruning Temporally Redundant Tokens for Faster VLM Inference",
        year=2025,
        url="https://arxiv.org/abs/2510.14624",
        citation="Bagrov, Khvedchenia, Tymchenko and 9 others, 2025",
    )
    fidelity: ClassVar[Fidelity] = "documented"
    modalities: ClassVar[frozenset[Modality]] = frozenset({"video"})
    needs: ClassVar[frozenset[Need]] = frozenset({"grid"})

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep`.

        Raises:
            ValueError: The item is no video.
        """
        require_modality(self, context.modality)
        frames = unit_rows(visual_tokens).unflatten(0, (grid_of(context, self.name)[0], -1))
        with full_precision(visual_tokens.device):
            change = 1 - (frames[1:] * frames[:-1]).sum(dim=-1)
        first = torch.full_like(frames[:1, :, 0], torch.inf)
        return ranked(torch.cat([first, change]).flatten())[:num_keep]
