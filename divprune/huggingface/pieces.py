"""The grids that an item's tokens form, one after the other: frames, tiles, the whole picture."""

from math import isqrt

import torch

from divprune.huggingface.layouts import Layout
from divprune.methods.base import Piece


def pieces_of(layout: Layout | None, num_tokens: int, entry_size: int) -> tuple[Piece, ...] | None:
    """The grids of one item's tokens; None if they are not known.

    Args:
        layout: where the tokens sit in the picture.
        num_tokens: M.
        entry_size: tokens of each of the encoder's entries, which are tiles if an item has several; 0 if they differ.
    """
    if layout is None:
        return _tiles(num_tokens, entry_size)
    if layout.grid is not None:
        frames, rows, columns = layout.grid
        return tuple(Piece(frame * rows * columns, rows, columns, columns) for frame in range(frames))
    return _around_row_breaks(layout, num_tokens)


def _tiles(num_tokens: int, size: int) -> tuple[Piece, ...] | None:
    side = isqrt(size)
    if not size or side * side != size or num_tokens % size:
        return None
    return tuple(Piece(start, side, side, side) for start in range(0, num_tokens, size))


def _around_row_breaks(layout: Layout, num_tokens: int) -> tuple[Piece, ...] | None:
    """LLaVA-NeXT: the whole picture as a square, then rows of equal length that end in a row break each."""
    breaks = torch.nonzero(layout.cells[:, 0].isnan()).squeeze(1).tolist()
    if not breaks or breaks[-1] != num_tokens - 1:
        return None
    if len(breaks) == 1:
        return _tiles(num_tokens - 1, num_tokens - 1)
    stride = breaks[1] - breaks[0]
    whole = num_tokens - stride * len(breaks)
    if breaks != list(range(whole + stride - 1, num_tokens, stride)) or isqrt(whole) ** 2 != whole:
        return None
    rows = Piece(whole, len(breaks), stride - 1, stride)
    return (*(_tiles(whole, whole) or ()), rows)
