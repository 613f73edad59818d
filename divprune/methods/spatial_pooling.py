"""Average pooling of the token grid: the plainest way to merge."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING, ClassVar

from divprune.methods.base import Count, Fidelity
from divprune.methods.grids import Grid, given_pieces, pooled, pooled_pieces
from divprune.methods.item_context import ItemContext, Need
from divprune.methods.merging import Merged, MergingMethod, unmerged

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SpatialPooling(MergingMethod):
    """Average pooling of the token grid to the largest grid of about its shape that has at most `num_keep` cells.

    A control without a paper. Of a video every frame is pooled alike; frames are averaged together only where there are
    fewer tokens to keep than frames. Where an image is cut into tiles, each is pooled, in proportion to its tokens,
    and image newline tokens are dropped; of fewer tokens than tiles, the first tiles get one each.
    """

    name: ClassVar[str] = "pooling"
    fidelity: ClassVar[Fidelity] = "unverified"
    count: ClassVar[Count] = "at_most"
    needs: ClassVar[frozenset[Need]] = frozenset({"pieces"})
    reads: ClassVar[frozenset[Need]] = frozenset({"grid"})

    def merge(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Merged:
        if num_keep == len(visual_tokens):
            return unmerged(num_keep, visual_tokens.device)
        if context.grid is not None:
            return pooled(context.grid, pooled_shape(context.grid, num_keep), visual_tokens.device)
        pieces = given_pieces(context, self.name)[:num_keep]
        total = sum(piece.rows * piece.columns for piece in pieces)
        spare = num_keep - len(pieces)
        shapes = [
            pooled_shape((1, piece.rows, piece.columns), 1 + spare * piece.rows * piece.columns // total)
            for piece in pieces
        ]
        return pooled_pieces(pieces, shapes, len(visual_tokens), visual_tokens.device)


def pooled_shape(grid: Grid, most: int) -> Grid:
    """Return the shape, about that of `grid`, that holds as many cells as possible and at most `most`."""
    frames, height, width = grid
    kept_frames = min(frames, most)
    each = most // kept_frames
    rows = min(height, max(1, isqrt(each * height // width)))
    columns = min(width, max(1, isqrt(each * width // height)))
    # Round one side down and let the other have what is left, whichever way fills more.
    by_rows = (kept_frames, rows, min(width, each // rows))
    by_columns = (kept_frames, min(height, each // columns), columns)
    return max(by_rows, by_columns, key=lambda shape: shape[1] * shape[2])
