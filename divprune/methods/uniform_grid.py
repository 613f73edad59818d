"""Evenly spaced tokens: the baseline that looks at nothing."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod, sqrt
from typing import TYPE_CHECKING, ClassVar

from divprune.lazy_torch import torch
from divprune.methods.base import Fidelity, Method
from divprune.methods.grids import spread
from divprune.methods.item_context import ItemContext, Need

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class UniformGrid(Method):
    """Tokens spread evenly over the image, or over the sequence where the image's grid is not known.

    On a (frames, height, width) grid the count is shared out evenly over the frames, in each frame over a number of
    rows that keeps the spacing about equal in both directions, and in each row over the columns. Else the tokens are
    `round(linspace(0, M - 1, k))`. The picks are in ascending order and not nested.
    """

    name: ClassVar[str] = "uniform"
    fidelity: ClassVar[Fidelity] = "unverified"
    reads: ClassVar[frozenset[Need]] = frozenset({"grid"})

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        total = len(visual_tokens)
        if context.grid is None or prod(context.grid) != total:
            picks = [round(step * (total - 1) / max(1, num_keep - 1)) for step in range(num_keep)]
        else:
            picks = _grid_picks(num_keep, context.grid)
        return torch.tensor(picks, dtype=torch.int64, device=visual_tokens.device)


def _grid_picks(num_keep: int, grid: tuple[int, int, int]) -> list[int]:
    frames, height, width = grid
    used_frames = spread(min(num_keep, frames), frames)
    picks = []
    for frame, count in zip(used_frames, _shares(num_keep, len(used_frames)), strict=True):
        # As many rows as make the spacing equal in both directions, and enough of them to hold the count.
        rows = min(height, count, max(ceil(count / width), round(sqrt(count * height / width))))
        for row, row_count in zip(spread(rows, height), _shares(count, rows), strict=True):
            picks += [(frame * height + row) * width + column for column in spread(row_count, width)]
    return picks


def _shares(total: int, parts: int) -> list[int]:
    """Return `parts` integers that differ by at most one, spread evenly, and sum to `total`."""
    return [total * (part + 1) // parts - total * part // parts for part in range(parts)]
