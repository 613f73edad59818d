"""The grids that an item's tokens form, one after the other: frames, tiles, the whole picture."""

from math import isqrt

from divprune.huggingface.families.token_layout import Layout
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
    if int(layout.frame.max()) > 0:
        return _frames_of_rows(layout, num_tokens)
    return _around_row_breaks(layout, num_tokens)


def _tiles(num_tokens: int, size: int) -> tuple[Piece, ...] | None:
    side = isqrt(size)
    if not size or side * side != size or num_tokens % size:
        return None
    return tuple(Piece(start, side, side, side) for start in range(0, num_tokens, size))


def _around_row_breaks(layout: Layout, num_tokens: int) -> tuple[Piece, ...] | None:
    """LLaVA-NeXT: the whole picture as a square, then rows of equal length that end in a row break each."""
    breaks = _row_breaks(layout)
    if not breaks or breaks[-1] != num_tokens - 1:
        return None
    if len(breaks) == 1:
        num_rows = len(layout.cells[:-1, 1].unique())
        columns = (num_tokens - 1) // num_rows
        return (Piece(0, num_rows, columns, columns),) if num_rows * columns == num_tokens - 1 else None
    stride = breaks[1] - breaks[0]
    whole = num_tokens - stride * len(breaks)
    if breaks != list(range(whole + stride - 1, num_tokens, stride)) or isqrt(whole) ** 2 != whole:
        return None
    rows = Piece(whole, len(breaks), stride - 1, stride)
    return (*(_tiles(whole, whole) or ()), rows)


def _frames_of_rows(layout: Layout, num_tokens: int) -> tuple[Piece, ...] | None:
    """HY 4: frames of equal size, whose rows end in a row break each."""
    breaks, sizes = _row_breaks(layout), layout.frame.unique_consecutive(return_counts=True)[1].tolist()
    stride = breaks[0] + 1 if breaks else num_tokens
    if breaks != list(range(stride - 1, num_tokens, stride)) or {*sizes} != {sizes[0]} or sizes[0] % stride:
        return None
    return tuple(Piece(start, sizes[0] // stride, stride - 1, stride) for start in range(0, num_tokens, sizes[0]))


def _row_breaks(layout: Layout) -> list[int]:
    breaks: list[int] = layout.cells[:, 0].isnan().nonzero().squeeze(1).tolist()
    return breaks
