"""Where the visual tokens of the LLaVA families sit in the picture, as far as the model's inputs tell."""

from collections.abc import Mapping
from math import ceil
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.modeling_llava_next import unpad_image

from divprune.huggingface.families.layout_rules import ragged_layout
from divprune.huggingface.families.token_layout import Layout, Size, grid_cells, grid_layout
from divprune.huggingface.model_inputs import Kind, pixels_of


def llava_layout(
    model: PreTrainedModel, inputs: Mapping[str, Any], kind: Kind, index: int, count: int
) -> Layout | None:
    """One grid of patches, led by the CLS token if the model keeps it (`vision_feature_select_strategy="full"`).

    With a Pixtral tower every picture has a grid of its own size.
    """
    if inputs.get("image_sizes") is not None:
        return ragged_layout(model, inputs, kind, index, count)
    pixels = pixels_of(inputs, "image")
    if pixels is None:
        return None
    height, width = pixels[index].shape[-2:]
    patch_size = model.config.vision_config.patch_size
    grid = (1, height // patch_size, width // patch_size)
    num_patches = grid[1] * grid[2]
    layout = grid_layout(grid, (width, height))
    if count == num_patches:
        return layout
    if count == num_patches + 1:
        cells = torch.cat([torch.full((1, 4), torch.nan), layout.cells])
        return Layout(cells, torch.zeros(count, dtype=torch.int64), layout.canvas)
    return None


def anyres_layout(
    model: PreTrainedModel, inputs: Mapping[str, Any], kind: Kind, index: int, count: int
) -> Layout | None:
    """LLaVA-NeXT: the whole picture squeezed onto one square, then the unpadded tiles with a newline token a row."""
    return _with_base(model, inputs, index, _anyres_tiles(model, inputs, index), count)


def _anyres_tiles(model: PreTrainedModel, inputs: Mapping[str, Any], index: int) -> Tensor:
    height, width = (int(side) for side in inputs["image_sizes"][index])
    tile, patch_size = model.config.vision_config.image_size, model.config.vision_config.patch_size
    target_height, target_width = select_best_resolution((height, width), model.config.image_grid_pinpoints)
    return _tile_cells((width, height), (target_width, target_height), tile, patch_size)


def _with_base(
    model: PreTrainedModel, inputs: Mapping[str, Any], index: int, tiles: Tensor, count: int
) -> Layout | None:
    height, width = (int(side) for side in inputs["image_sizes"][index])
    tile, patch_size = model.config.vision_config.image_size, model.config.vision_config.patch_size
    cells = torch.cat([grid_cells(tile // patch_size, tile // patch_size), tiles])
    if len(cells) != count:
        return None
    return Layout(cells, torch.zeros(count, dtype=torch.int64), (tile, tile), "stretch", (width, height))


def _tile_cells(picture: Size, target: Size, tile: int, patch_size: int) -> Tensor:
    """Cells, as shares of the picture, of the tiles' patches that `unpad_image` leaves, and NaN for each newline."""
    within = torch.arange(tile // patch_size) * patch_size
    left, top = ((torch.arange(side // tile)[:, None] * tile + within).flatten() for side in target)
    corners = torch.stack(torch.meshgrid(left, top, indexing="xy"))
    unpadded: Tensor = unpad_image(corners, (picture[1], picture[0]))
    left_top = unpadded.permute(1, 2, 0).double()
    scale = min(target[0] / picture[0], target[1] / picture[1])
    size = torch.tensor([min(ceil(side * scale), limit) for side, limit in zip(picture, target, strict=True)])
    offset = (torch.tensor(target) - size) // 2
    boxes = torch.cat([(left_top - offset) / size, (left_top + patch_size - offset) / size], dim=-1)
    newlines = torch.full((boxes.shape[0], 1, 4), torch.nan, dtype=boxes.dtype)
    return torch.cat([boxes.clamp(0, 1), newlines], dim=1).flatten(0, 1).float()


def onevision_layout(
    model: PreTrainedModel, inputs: Mapping[str, Any], kind: Kind, index: int, count: int
) -> Layout | None:
    """LLaVA-OneVision: LLaVA-NeXT's tiles, scaled down if many; untiled pictures and videos end in one newline."""
    vision = model.config.vision_config
    side = vision.image_size // vision.patch_size
    if kind == "video":
        return _newline_last(_pooled_frames(inputs, index, count - 1))
    if count == side * side + 1:
        return _newline_last(grid_layout((1, side, side), (vision.image_size, vision.image_size), "stretch"))
    layout = anyres_layout(model, inputs, kind, index, count)
    return layout or _scaled_tiles(model, inputs, index, count)


def _scaled_tiles(model: PreTrainedModel, inputs: Mapping[str, Any], index: int, count: int) -> Layout | None:
    """The tiles' patches as one grid, scaled to at most `anyres_max_N` times the base grid."""
    vision = model.config.vision_config
    side = vision.image_size // vision.patch_size
    full = _anyres_tiles(model, inputs, index)
    rows = int(full[:, 0].isnan().sum())
    columns = len(full) // rows - 1
    most = int(model.config.vision_aspect_ratio.removeprefix("anyres_max_"))
    ratio = (rows * columns / (most * side**2)) ** 0.5
    rows, columns = int(rows // ratio), int(columns // ratio)
    newlines = torch.full((rows, 1, 4), torch.nan)
    tiles = torch.cat([grid_cells(rows, columns).unflatten(0, (rows, columns)), newlines], dim=1).flatten(0, 1)
    return _with_base(model, inputs, index, tiles, count)


def next_video_layout(
    model: PreTrainedModel, inputs: Mapping[str, Any], kind: Kind, index: int, count: int
) -> Layout | None:
    """LLaVA-NeXT-Video: images as LLaVA-NeXT; a video is frames of one pooled grid each."""
    return anyres_layout(model, inputs, kind, index, count) if kind == "image" else _pooled_frames(inputs, index, count)


def video_llava_layout(
    model: PreTrainedModel, inputs: Mapping[str, Any], kind: Kind, index: int, count: int
) -> Layout | None:
    """Video-LLaVA: images as LLaVA-1.5; every frame of a video is a grid led by its CLS token."""
    if kind == "image":
        return llava_layout(model, inputs, kind, index, count)
    frames, _, height, width = inputs["pixel_values_videos"][index].shape
    rows, columns = (side // model.config.vision_config.patch_size for side in (height, width))
    if frames * (rows * columns + 1) != count:
        return None
    cells = torch.cat([torch.full((1, 4), torch.nan), grid_cells(rows, columns)]).repeat(frames, 1)
    return Layout(cells, torch.arange(frames).repeat_interleave(rows * columns + 1), (width, height))


def _pooled_frames(inputs: Mapping[str, Any], index: int, count: int) -> Layout | None:
    frames, _, height, width = inputs["pixel_values_videos"][index].shape
    side = round((count / frames) ** 0.5)
    return grid_layout((frames, side, side), (width, height)) if frames * side * side == count else None


def _newline_last(layout: Layout | None) -> Layout | None:
    if layout is None:
        return None
    cells = torch.cat([layout.cells, torch.full((1, 4), torch.nan)])
    return Layout(cells, torch.cat([layout.frame, layout.frame[-1:]]), layout.canvas, layout.fit)
