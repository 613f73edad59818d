"""Pooling a grid of tokens to a smaller one."""

import torch
from torch import Tensor

from divprune.methods.base import ItemContext, Piece
from divprune.methods.merging import Merged

Grid = tuple[int, int, int]


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


def _axis(length: int, count: int) -> Tensor:
    """Return (count, length) averages over the stretches from floor(i L / c) to ceil((i + 1) L / c)."""
    weights = torch.zeros(count, length)
    for cell in range(count):
        start, end = cell * length // count, -(-(cell + 1) * length // count)
        weights[cell, start:end] = 1 / (end - start)
    return weights
