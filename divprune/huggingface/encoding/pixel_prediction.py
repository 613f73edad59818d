"""Find the parts of an image that need not be encoded, because a neighbour has the same pixels: predictive coding.

**image / video -> which units are encoded** -> vision encoder -> projector -> visual tokens. A unit is what the
projector makes one visual token of, a square of patches. In raster order a unit is predicted by its left neighbour,
then by its upper one; it is redundant if one of them tells its pixels.

After PixelPrune (N. Wang, Z. Jin, C. Chen, H. Lu, https://arxiv.org/abs/2604.00886): redundant units are left out in
front of the encoder's first layer, nothing is trained, tolerance 0 loses no pixel and a larger one a bounded amount.
Three things are ours, where the abstract leaves them open. A unit is compared with what stands for its neighbour, as a
decoder of predictive coding would see it: so each redundant unit is within the tolerance of one that is encoded,
however long the chain between them, and a slow gradient does not fade into one colour. Where both neighbours tell the
pixels, the left one does. And no unit is predicted across a border: of an item, of a frame, or of an encoder's window.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

UnitGrid = tuple[int, int, int]
"""Frames, rows and columns of units of an image or video."""


def encoded_instead(
    units: Tensor, grids: Sequence[UnitGrid], window_side: int | None = None, tolerance: float = 0.0
) -> Tensor:
    """Find for each unit the one that is encoded in its place: itself, unless a neighbour tells its pixels.

    Args:
        units: (M, v) pixel values of the units of all items, frame by frame in raster order.
        grids: of the items.
        window_side: rows and columns of units that see each other in the encoder; None where whole frames do.
        tolerance: largest difference of two pixel values that count as the same.

    Returns:
        (M,) int64; a unit that is encoded stands for itself, and at least the first one of each window is.
    """
    left, upper, distance = (each.to(units.device) for each in _neighbours(grids, window_side))
    found = torch.arange(len(units), device=units.device)
    # Units as far from the first one of their window do not depend on each other: one step for all windows at once.
    #   0 1 2 3
    #   1 2 3 4
    #   2 3 4 5
    waves = distance.argsort(stable=True).split(distance.bincount().tolist())
    for wave in waves[1:]:
        # What the left neighbour tells is written last. A unit without one stands in for it, and changes nothing.
        for neighbours in (upper, left):
            standing = found[neighbours[wave]]
            is_same = (units[wave] - units[standing]).abs().amax(dim=1) <= tolerance
            found[wave] = torch.where(is_same, standing, found[wave])
    return found


def _neighbours(grids: Sequence[UnitGrid], window_side: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Locate each unit's left and upper neighbour, itself if it has none, and count its steps from the window's first.

    Returns:
        Three times (M,) int64.
    """
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    start = 0
    for frames, rows, columns in grids:
        index = torch.arange(start, start + frames * rows * columns).view(frames, rows, columns)
        row = (torch.arange(rows) % (window_side or rows)).view(-1, 1).expand_as(index)
        column = (torch.arange(columns) % (window_side or columns)).expand_as(index)
        left = index - (column > 0).long()
        upper = index - columns * (row > 0).long()
        found.append((left.flatten(), upper.flatten(), (row + column).flatten()))
        start += index.numel()
    left, upper, distance = (torch.cat(each) for each in zip(*found, strict=True))
    return left, upper, distance
