"""Grids of tokens: pooling them to smaller ones, and what lies where on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from divprune.lazy_torch import torch
from divprune.methods.item_context import ItemContext, Piece
from divprune.methods.merging import Merged

if TYPE_CHECKING:
    from torch import Tensor

Grid = tuple[int, int, int]
NOWHERE = -1


def spread(count: int, length: int) -> list[int]:
    """Return `count` distinct positions in range(length): the middles of equal stretches."""
    return [(2 * step + 1) * length // (2 * count) for step in range(count)]


def grid_of(context: ItemContext, method: str) -> Grid:
    """Return the (frames, height, width) of the tokens.

    Raises:
        ValueError: They form no grid.
    """
    if context.grid is None:
        raise ValueError(f"context.grid must be given to method {method!r}, got None: its tokens form no grid")
    return context.grid


def pieces_of_grid(grid: Grid) -> tuple[Piece, ...]:
    """Return the frames of a (frames, height, width) grid of tokens, each a grid of its own."""
    frames, rows, columns = grid
    return tuple(Piece(frame * rows * columns, rows, columns, columns) for frame in range(frames))


def packed_pieces(has_patch: Tensor, side: int) -> tuple[Piece, ...]:
    """Return the grids of an image that is packed as LLaVA-NeXT's are.

    Args:
        has_patch: (M,) bool; False at image newline tokens.
        side: Tokens along each side of the whole image's grid, the first.

    Returns:
        The whole image's grid, and that of its tiles, whose rows end in a newline token each; where nothing is cut into
        tiles, one newline token follows the first grid.
    """
    whole = Piece(0, side, side, side)
    num_others = len(has_patch) - side**2
    if num_others == 1:
        return (whole,)
    stride = int((~has_patch).nonzero()[0]) - side**2 + 1
    return whole, Piece(side**2, num_others // stride, stride - 1, stride)


def pooled(grid: Grid, shape: Grid, device: torch.device | None = None) -> Merged:
    """Return the average pooling of a (frames, height, width) grid to a smaller `shape`.

    Cells are those of adaptive pooling: they cover the grid, and overlap by a token where sizes do not divide. The
    anchor of a cell is the token in its middle.
    """
    frames, rows, columns = (_axis(length, count) for length, count in zip(grid, shape, strict=True))
    weights = torch.kron(frames, torch.kron(rows, columns))
    middles = [torch.tensor(spread(count, length)) for length, count in zip(grid, shape, strict=True)]
    frame, row, column = torch.meshgrid(*middles, indexing="ij")
    anchors = (frame * grid[1] + row) * grid[2] + column
    return Merged(weights.to(device), anchors.flatten().to(device))


def pooled_pieces(pieces: tuple[Piece, ...], shapes: list[Grid], total: int, device: torch.device) -> Merged:
    """Return the average pooling of each piece of `total` tokens to its shape (1, rows, columns); the rest is dropped.

    Pieces without a shape are dropped too.
    """
    parts = [pooled((1, piece.rows, piece.columns), shape) for piece, shape in zip(pieces, shapes, strict=False)]
    weights = torch.zeros(sum(len(part.anchors) for part in parts), total)
    anchors, first = [], 0
    for piece, part in zip(pieces, parts, strict=False):
        row, column = torch.arange(piece.rows), torch.arange(piece.columns)
        tokens = (piece.start + piece.stride * row.unsqueeze(1) + column).flatten()
        weights[first : first + len(part.anchors), tokens] = part.weights
        anchors.append(tokens[part.anchors])
        first += len(part.anchors)
    return Merged(weights.to(device), torch.cat(anchors).to(device))


def given_pieces(context: ItemContext, method: str) -> tuple[Piece, ...]:
    """Return the grids that the tokens form.

    Raises:
        ValueError: They are not known.
    """
    if context.pieces is None:
        raise ValueError(f"context.pieces must be given to method {method!r}, got None: its tokens form no grids")
    return context.pieces


def token_places(pieces: tuple[Piece, ...], total: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return for each of `total` tokens its piece, row and column (M,) int64; `NOWHERE` for tokens on no piece."""
    places = torch.full((3, total), NOWHERE)
    for number, piece in enumerate(pieces):
        row, column = torch.meshgrid(torch.arange(piece.rows), torch.arange(piece.columns), indexing="ij")
        tokens = piece.start + row * piece.stride + column
        places[:, tokens] = torch.stack([torch.full_like(row, number), row, column])
    piece_of, rows, columns = places
    return piece_of, rows, columns


def neighbours_on_grid(pieces: tuple[Piece, ...], total: int, device: torch.device) -> Tensor:
    """Return for each of `total` tokens those above, below, left and right of it (M, 4) int64; `NOWHERE` at edges."""
    found = torch.full((total, 4), NOWHERE)
    for piece in pieces:
        row, column = torch.meshgrid(torch.arange(piece.rows), torch.arange(piece.columns), indexing="ij")
        tokens = piece.start + row * piece.stride + column
        rows = torch.stack([row - 1, row + 1, row, row], dim=-1)
        columns = torch.stack([column, column, column - 1, column + 1], dim=-1)
        inside = (rows >= 0) & (rows < piece.rows) & (columns >= 0) & (columns < piece.columns)
        found[tokens] = torch.where(inside, piece.start + rows * piece.stride + columns, NOWHERE)
    return found.to(device)


def windows_on_grid(pieces: tuple[Piece, ...], total: int, side: int) -> Tensor:
    """Return (M,) int64 the window of side x side tokens of its piece that each of `total` tokens lies in.

    Windows are numbered from 0 piece by piece and row by row; tokens on no piece are a last window together.
    """
    piece_of, row, column = token_places(pieces, total)
    widest = max(piece.columns for piece in pieces) // side + 1
    tallest = max(piece.rows for piece in pieces) // side + 1
    number = (piece_of * tallest + row // side) * widest + column // side
    number = torch.where(piece_of == NOWHERE, len(pieces) * tallest * widest, number)
    windows: Tensor = number.unique(return_inverse=True)[1]
    return windows


def _axis(length: int, count: int) -> Tensor:
    """Return (count, length) averages over the stretches from floor(i L / c) to ceil((i + 1) L / c)."""
    weights = torch.zeros(count, length)
    for cell in range(count):
        start, end = cell * length // count, -(-(cell + 1) * length // count)
        weights[cell, start:end] = 1 / (end - start)
    return weights
