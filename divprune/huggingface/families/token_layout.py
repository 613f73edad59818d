"""Where each visual token sits in the picture it came from.

A layout lies on the *canvas*, the picture as the processor handed it to the encoder; `Layout.boxes` maps it back to
pixels of the original picture. Only reports read layouts: no token is chosen by them.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

Fit = Literal["stretch", "center_crop", "pad"]
Size = tuple[int, int]


class TokenBox(NamedTuple):
    """The part of a picture that one visual token stands for, in pixels; `frame` counts from 0."""

    frame: int
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Layout:
    """Cells of one image's or video's visual tokens on its canvas.

    Attributes:
        cells: (M, 4) float, left, top, right, bottom as shares of the canvas; NaN for tokens with no place (newlines).
        frame: (M,) int64, the sampled frame that a token belongs to (the first one, where the encoder merges several).
        canvas: width and height of the processed picture in pixels.
        fit: how the processor brought the picture onto the canvas, where the model's inputs fix it.
        picture_size: width and height of the original picture in pixels, where the model's inputs tell.
        grid: frames, rows, columns, where the tokens form one regular grid in that order.
    """

    cells: Tensor
    frame: Tensor
    canvas: Size
    fit: Fit | None = None
    picture_size: Size | None = None
    grid: tuple[int, int, int] | None = None

    def boxes(self, indices: Tensor, picture_size: Size | None, fit: Fit) -> list[TokenBox | None]:
        """Boxes of some tokens in pixels of the original picture (of the canvas if no picture size is known).

        Args:
            indices: (k,) int64 token indices.
            picture_size: width and height of the original picture; None for what the model's inputs tell.
            fit: how the processor brought the picture onto the canvas, used where the inputs do not fix it.

        Returns:
            One box a token, None for a token with no place in the picture.
        """
        width, height = picture_size or self.picture_size or self.canvas
        scale, offset = _canvas_to_picture(self.canvas, (width, height), self.fit or fit)
        cells = self.cells[indices].double()
        pixels = (cells * scale + offset).clamp(min=0).minimum(torch.tensor([width, height] * 2))
        frames = self.frame[indices].tolist()
        return [
            None if box[0] != box[0] else TokenBox(frame, *box)
            for frame, box in zip(frames, pixels.tolist(), strict=True)
        ]


def _canvas_to_picture(canvas: Size, picture: Size, fit: Fit) -> tuple[Tensor, Tensor]:
    """Scale and offset that take (left, top, right, bottom) shares of the canvas to pixels of the picture."""
    canvas_size, picture_size = (torch.tensor(size * 2, dtype=torch.float64) for size in (canvas, picture))
    if fit == "stretch":
        return picture_size, torch.zeros(4, dtype=torch.float64)
    # Both keep the aspect ratio and centre: a crop fills the canvas, padding contains the whole picture.
    ratios = canvas_size / picture_size
    pixels_per_pixel = ratios.max() if fit == "center_crop" else ratios.min()
    scale = canvas_size / pixels_per_pixel
    return scale, (picture_size - scale) / 2


def fit_of(processor: Any | None, kind: str) -> Fit:
    """How a processor brings a picture onto the canvas; LLaVA-1.5's centre crop if there is no processor to ask."""
    part = getattr(processor, f"{kind}_processor", None)
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
