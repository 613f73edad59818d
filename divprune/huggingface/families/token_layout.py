"""Where each visual token sits in the image it came from.

A layout lies on the *canvas*, the image as the processor handed it to the encoder; `Layout.boxes` maps it back to
pixels of the original image. Reports draw layouts; `uniform`, pooling methods, `newlines` and the scopes "frame" and
"tile" choose by them.
"""

from dataclasses import dataclass, replace
from math import isqrt
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from divprune.methods.grids import pieces_of_grid
from divprune.methods.item_context import Piece

Fit = Literal["stretch", "center_crop", "pad"]
Size = tuple[int, int]


class TokenBox(NamedTuple):
    """The part of an image that one visual token stands for, in pixels; `frame` counts from 0."""

    frame: int
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Layout:
    """Cells of one image's or video's visual tokens on its canvas.

    Attributes:
        cells: (M, 4) float, left, top, right, bottom as fractions of the canvas; NaN for tokens with no place.
        frame: (M,) int64, the sampled frame that a token belongs to (the first one, where the encoder merges several).
        canvas: width and height of the processed image in pixels.
        fit: how the processor brought the image onto the canvas, where the model's inputs fix it.
        image_size: width and height of the original image in pixels, where the model's inputs tell.
        grid: frames, rows, columns, where the tokens form one regular grid in that order.
        tile: (M,) int64, the tile that a token belongs to, 0 for the whole image and then row by row; an image newline
            token belongs to the last tile of its row. None where nothing is cut into tiles.
        newline_row: (M,) int64, which of the rows that end in an image newline token a token belongs to, -1 for none.
            None where there are no such rows.
    """

    cells: Tensor
    frame: Tensor
    canvas: Size
    fit: Fit | None = None
    image_size: Size | None = None
    grid: tuple[int, int, int] | None = None
    tile: Tensor | None = None
    newline_row: Tensor | None = None

    @property
    def newlines(self) -> Tensor:
        """(M,) bool, which tokens are image newline tokens."""
        has_no_place = self.cells[:, 0].isnan()
        return has_no_place & (self.newline_row >= 0) if self.newline_row is not None else has_no_place & False

    def at(self, tokens: Tensor) -> "Layout":
        """Return the layout of some tokens (k,) int64, which form no grid."""
        tile, newline_row = (None if part is None else part[tokens] for part in (self.tile, self.newline_row))
        cells, frame = self.cells[tokens], self.frame[tokens]
        return replace(self, cells=cells, frame=frame, tile=tile, newline_row=newline_row, grid=None)

    def boxes(self, indices: Tensor, image_size: Size | None, fit: Fit) -> list[TokenBox | None]:
        """Boxes of some tokens in pixels of the original image (of the canvas if no image size is known).

        Args:
            indices: (k,) int64 token indices.
            image_size: width and height of the original image; None for what the model's inputs tell.
            fit: how the processor brought the image onto the canvas, used where the inputs do not fix it.

        Returns:
            One box a token, None for a token with no place in the image.
        """
        width, height = image_size or self.image_size or self.canvas
        scale, offset = _canvas_to_picture(self.canvas, (width, height), self.fit or fit)
        cells = self.cells[indices].double()
        pixels = (cells * scale + offset).clamp(min=0).minimum(torch.tensor([width, height] * 2))
        frames = self.frame[indices].tolist()
        return [
            None if box[0] != box[0] else TokenBox(frame, *box)
            for frame, box in zip(frames, pixels.tolist(), strict=True)
        ]


def _canvas_to_picture(canvas: Size, image: Size, fit: Fit) -> tuple[Tensor, Tensor]:
    """Scale and offset that take (left, top, right, bottom) fractions of the canvas to pixels of the image."""
    canvas_size, image_size = (torch.tensor(size * 2, dtype=torch.float64) for size in (canvas, image))
    if fit == "stretch":
        return image_size, torch.zeros(4, dtype=torch.float64)
    # Both keep the aspect ratio and centre: a crop fills the canvas, padding contains the whole image.
    ratios = canvas_size / image_size
    pixels_per_pixel = ratios.max() if fit == "center_crop" else ratios.min()
    scale = canvas_size / pixels_per_pixel
    return scale, (image_size - scale) / 2


def fit_of(processor: Any | None, modality: str) -> Fit:
    """Tell how a processor brings an image onto the canvas; LLaVA-1.5's centre crop if there is no processor to ask."""
    part = getattr(processor, f"{modality}_processor", None)
    if part is None:
        return "center_crop"
    if getattr(part, "do_pad", False):
        return "pad"
    return "center_crop" if getattr(part, "do_center_crop", False) else "stretch"


def grid_cells(rows: int, columns: int) -> Tensor:
    """(rows * columns, 4) cells of a regular grid over the whole canvas, row by row."""
    top, left = torch.meshgrid(torch.arange(rows) / rows, torch.arange(columns) / columns, indexing="ij")
    return torch.stack([left, top, left + 1 / columns, top + 1 / rows], dim=-1).flatten(0, 1)


def grid_layout(grid: tuple[int, int, int], canvas: Size, fit: Fit | None = None, frames_per_step: int = 1) -> Layout:
    """Layout of (frames, rows, columns) tokens; `frames_per_step` sampled frames share one temporal step."""
    steps, rows, columns = grid
    frame = torch.arange(steps).repeat_interleave(rows * columns) * frames_per_step
    return Layout(grid_cells(rows, columns).repeat(steps, 1), frame, canvas, fit, grid=grid)


def pieces_of(layout: Layout | None, num_tokens: int, entry_size: int) -> tuple[Piece, ...] | None:
    """Return the grids of one item's tokens; None if they are not known.

    Args:
        layout: where the tokens sit in the image.
        num_tokens: M.
        entry_size: tokens of each of the encoder's entries, which are tiles if an item has several; 0 if they differ.
    """
    if layout is None:
        return _tiles(num_tokens, entry_size)
    if layout.grid is not None:
        return pieces_of_grid(layout.grid)
    if int(layout.frame.max()) > 0:
        return _frames_of_rows(layout, num_tokens)
    return _around_row_breaks(layout, num_tokens)


def tile_piece(layout: Layout | None, tokens: Tensor) -> Piece | None:
    """Return the grid that the tokens of one tile form among themselves, None if they form none.

    Args:
        layout: of the whole item; None for square tiles without newline tokens.
        tokens: (n,) int64, ascending: the tile's, with or without the newline tokens of its rows.
    """
    if layout is None or (layout.tile is not None and int(layout.tile[tokens[0]]) == 0):
        return next(iter(_tiles(len(tokens), len(tokens)) or ()), None)
    if layout.tile is None or layout.newline_row is None:
        return None
    num_rows = len(layout.newline_row[tokens].unique())
    stride, rest = divmod(len(tokens), num_rows)
    return None if rest else Piece(0, num_rows, stride - int(layout.newlines[tokens].any()), stride)


def _tiles(num_tokens: int, size: int) -> tuple[Piece, ...] | None:
    side = isqrt(size)
    if not size or side * side != size or num_tokens % size:
        return None
    return tuple(Piece(start, side, side, side) for start in range(0, num_tokens, size))


def _around_row_breaks(layout: Layout, num_tokens: int) -> tuple[Piece, ...] | None:
    """LLaVA-NeXT: the whole image as a square, then rows of equal length that end in a image newline token each."""
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
    """HY 4: frames of equal size, whose rows end in a image newline token each."""
    breaks, sizes = _row_breaks(layout), layout.frame.unique_consecutive(return_counts=True)[1].tolist()
    stride = breaks[0] + 1 if breaks else num_tokens
    if breaks != list(range(stride - 1, num_tokens, stride)) or {*sizes} != {sizes[0]} or sizes[0] % stride:
        return None
    return tuple(Piece(start, sizes[0] // stride, stride - 1, stride) for start in range(0, num_tokens, sizes[0]))


def _row_breaks(layout: Layout) -> list[int]:
    breaks: list[int] = layout.cells[:, 0].isnan().nonzero().squeeze(1).tolist()
    return breaks
