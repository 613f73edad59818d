"""M3's nested grids, without M3's training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.methods.base import Count, Fidelity, Paper
from divprune.methods.grids import Grid, given_pieces, pooled_pieces
from divprune.methods.item_context import ItemContext, Need
from divprune.methods.merging import Merged, MergingMethod, unmerged

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class M3Pooling(MergingMethod):
    """M3's nested grids by repeated 2 x 2 average pooling, training-free: the paper's model is trained for it.

    The largest grid of the series with at most `num_keep` cells: 576, 144, 36, 9, 1 of 24 x 24. Stand-in: without M3's
    weights this is pooling and nothing more; numbers do not compare with the paper's. Sides are halved, rounding down
    to 1 at least. Frames of a video stay apart, so that there is one token for each at least.

    M. Cai, J. Yang, J. Gao, Y. J. Lee, "Matryoshka Multimodal Models", ICLR 2025, https://arxiv.org/abs/2405.17430
    """

    name: ClassVar[str] = "m3"
    paper: ClassVar[Paper | None] = Paper(
        title="Matryoshka Multimodal Models",
        year=2025,
        url="https://arxiv.org/abs/2405.17430",
        citation="Cai, Yang, Gao, Lee, ICLR 2025",
    )
    fidelity: ClassVar[Fidelity] = "stand-in"
    count: ClassVar[Count] = "at_most"
    needs: ClassVar[frozenset[Need]] = frozenset({"pieces"})

    def merge(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Merged:
        """Pool each grid.

        Raises:
            ValueError: `num_keep` is less than the number of frames or tiles.
        """
        if num_keep == len(visual_tokens):
            return unmerged(num_keep, visual_tokens.device)
        pieces = given_pieces(context, self.name)
        if num_keep < len(pieces):
            what = f"num_keep must be at least the number of frames or tiles, {len(pieces)}, for 'm3'"
            raise ValueError(f"{what}, got {num_keep}")
        shapes: list[Grid] = [(1, piece.rows, piece.columns) for piece in pieces]
        while sum(rows * columns for _, rows, columns in shapes) > num_keep:
            shapes = [(1, max(1, rows // 2), max(1, columns // 2)) for _, rows, columns in shapes]
        return pooled_pieces(pieces, shapes, len(visual_tokens), visual_tokens.device)
