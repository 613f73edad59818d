"""Where LLaVA-NeXT's and its relatives' tokens sit: the whole image, then its tiles, whose rows end in a newline."""

from collections.abc import Mapping
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.modeling_llava_next import unpad_image

from divprune.huggingface.families.token_layout import Layout, Size, grid_cells, grid_layout
from divprune.methods.item_context import Modality


def anyres_layout(config: Any, inputs: Mapping[str, Any], modality: Modality, index: int, count: int) -> Layout | None:
    """LLaVA-NeXT: the whole image squeezed onto one square, then the unpadded tiles with a newline token a row."""
    return _with_base(config, inputs, index, _anyres_tiles(config, inputs, index), count)


class TileCounts(NamedTuple):
    """Visual tokens of an image, the image newline tokens among them, and the tiles, the whole image being one."""

    num_visual_tokens: int
    num_newlines: int
    num_tiles: int


def anyres_counts(config: Any, width: int, height: int) -> TileCounts:
    """Count what LLaVA-NeXT makes of an image of `width` by `height` pixels."""
    rows = _anyres_tiles(config, {"image_sizes": [(height, width)]}, 0)
    base = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
    return TileCounts(base + rows.tile.numel(), len(rows.tile), 1 + len(rows.tile.unique()))


class _Rows(NamedTuple):
    """Rows of tokens that end in a newline token each: (rows, columns + 1, 4) cells, (rows, columns + 1) tiles."""

    cells: Tensor
    tile: Tensor


def _with_newlines(cells: Tensor, tile: Tensor) -> _Rows:
    """Put a newline token behind each row of cells (rows, columns, 4) and tiles (rows, columns)."""
    newlines = torch.full((len(cells), 1, 4), torch.nan, dtype=cells.dtype)
    return _Rows(torch.cat([cells, newlines], dim=1).float(), torch.cat([tile, tile[:, -1:]], dim=1))


def _anyres_tiles(config: Any, inputs: Mapping[str, Any], index: int) -> _Rows:
    height, width = (int(side) for side in inputs["image_sizes"][index])
    tile, patch_size = config.vision_config.image_size, config.vision_config.patch_size
    target_height, target_width = select_best_resolution((height, width), config.image_grid_pinpoints)
    return _tile_rows((width, height), (target_width, target_height), tile, patch_size)


def _with_base(config: Any, inputs: Mapping[str, Any], index: int, rows: _Rows, count: int) -> Layout | None:
    height, width = (int(side) for side in inputs["image_sizes"][index])
    tile, patch_size = config.vision_config.image_size, config.vision_config.patch_size
    base = grid_cells(tile // patch_size, tile // patch_size)
    cells = torch.cat([base, rows.cells.flatten(0, 1)])
    if len(cells) != count:
        return None
    frame = torch.zeros(count, dtype=torch.int64)
    own_row = torch.arange(len(rows.tile)).repeat_interleave(rows.tile.shape[1])
    return Layout(
        cells,
        frame,
        (tile, tile),
        "stretch",
        (width, height),
        tile=torch.cat([frame[: len(base)], rows.tile.flatten()]),
        newline_row=torch.cat([frame[: len(base)] - 1, own_row]),
    )


def _tile_rows(image: Size, target: Size, tile: int, patch_size: int) -> _Rows:
    """Cells, as fractions of the image, of the tiles' patches that `unpad_image` leaves, and NaN for each newline."""
    within = torch.arange(tile // patch_size) * patch_size
    left, top = ((torch.arange(side // tile)[:, None] * tile + within).flatten() for side in target)
    corners = torch.stack(torch.meshgrid(left, top, indexing="xy"))
    unpadded: Tensor = unpad_image(corners, (image[1], image[0]))
    number = 1 + unpadded[1] // tile * (target[0] // tile) + unpadded[0] // tile
    left_top = unpadded.permute(1, 2, 0).double()
    scale = min(target[0] / image[0], target[1] / image[1])
    size = torch.tensor([min(ceil(side * scale), limit) for side, limit in zip(image, target, strict=True)])
    offset = (torch.tensor(target) - size) // 2
    boxes = torch.cat([(left_top - offset) / size, (left_top + patch_size - offset) / size], dim=-1)
    return _with_newlines(boxes.clamp(0, 1), number)


def onevision_layout(
    config: Any, inputs: Mapping[str, Any], modality: Modality, index: int, count: int
) -> Layout | None:
    """LLaVA-OneVision: LLaVA-NeXT's tiles, scaled down if many; untiled images and videos end in one newline."""
    vision = config.vision_config
    side = vision.image_size // vision.patch_size
    if modality == "video":
        return _newline_last(_pooled_frames(inputs, index, count - 1))
    if count == side * side + 1:
        return _newline_last(grid_layout((1, side, side), (vision.image_size, vision.image_size), "stretch"))
    layout = anyres_layout(config, inputs, modality, index, count)
    return layout or _scaled_tiles(config, inputs, index, count)


def _scaled_tiles(config: Any, inputs: Mapping[str, Any], index: int, count: int) -> Layout | None:
    """Return the tiles' patches as one grid, scaled to at most `anyres_max_N` times the base grid.

    A scaled token belongs to the tile that its middle lies in.
    """
    vision = config.vision_config
    side = vision.image_size // vision.patch_size
    tile = _anyres_tiles(config, inputs, index).tile[:, :-1]
    most = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))
    ratio = (tile.numel() / (most * side**2)) ** 0.5
    rows, columns = (int(length // ratio) for length in tile.shape)
    middles = [
        (torch.arange(scaled) * 2 + 1) * full // (2 * scaled)
        for scaled, full in zip((rows, columns), tile.shape, strict=True)
    ]
    scaled = _with_newlines(grid_cells(rows, columns).unflatten(0, (rows, columns)), tile[middles[0]][:, middles[1]])
    return _with_base(config, inputs, index, scaled, count)


def next_video_layout(
    config: Any, inputs: Mapping[str, Any], modality: Modality, index: int, count: int
) -> Layout | None:
    """LLaVA-NeXT-Video: images as LLaVA-NeXT; a video is frames of one pooled grid each."""
    return (
        anyres_layout(config, inputs, modality, index, count)
        if modality == "image"
        else _pooled_frames(inputs, index, count)
    )


def _pooled_frames(inputs: Mapping[str, Any], index: int, count: int) -> Layout | None:
    frames, _, height, width = inputs["pixel_values_videos"][index].shape
    side = round((count / frames) ** 0.5)
    return grid_layout((frames, side, side), (width, height)) if frames * side * side == count else None


def _newline_last(layout: Layout | None) -> Layout | None:
    if layout is None:
        return None
    cells = torch.cat([layout.cells, torch.full((1, 4), torch.nan)])
    frame = torch.cat([layout.frame, layout.frame[-1:]])
    return Layout(cells, frame, layout.canvas, layout.fit, newline_row=torch.zeros_like(frame))
