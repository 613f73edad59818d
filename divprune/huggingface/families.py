"""The few things that differ between model families; everything else is generic.

A family is supported once it is listed here: CONTRIBUTING.md says how to add one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.modeling_llava_next import unpad_image

from divprune.errors import UnsupportedModelError
from divprune.huggingface.layouts import Layout, Size, grid_cells, grid_layout

Kind = Literal["image", "video"]
Positions = Literal["compact", "original"]
LayoutRule = Callable[[PreTrainedModel, Mapping[str, Any], Kind, int, int], Layout | None]


@dataclass(frozen=True)
class Family:
    """What pruning needs to know of one model family.

    Attributes:
        name: `model.config.model_type`.
        kinds: the media whose tokens can be pruned.
        positions: the default of `prune(positions=...)`.
        layout: `layout(model, inputs, kind, index, num_visual_tokens)` gives the places of one item's tokens in the
            picture, None where they are unknown. `index` counts the items of that kind in the call.
        example: a public checkpoint of the family.
    """

    name: str
    kinds: tuple[Kind, ...]
    positions: Positions
    layout: LayoutRule
    example: str


def llava_layout(
    model: PreTrainedModel, inputs: Mapping[str, Any], kind: Kind, index: int, count: int
) -> Layout | None:
    """One grid of patches, led by the CLS token if the model keeps it (`vision_feature_select_strategy="full"`)."""
    height, width = inputs["pixel_values"][index].shape[-2:]
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
    height, width = (int(side) for side in inputs["image_sizes"][index])
    tile, patch_size = model.config.vision_config.image_size, model.config.vision_config.patch_size
    target_height, target_width = select_best_resolution((height, width), model.config.image_grid_pinpoints)
    tiles = _tile_cells((width, height), (target_width, target_height), tile, patch_size)
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


def next_video_layout(
    model: PreTrainedModel, inputs: Mapping[str, Any], kind: Kind, index: int, count: int
) -> Layout | None:
    """LLaVA-NeXT-Video: images as LLaVA-NeXT; a video is frames of one pooled grid each."""
    if kind == "image":
        return anyres_layout(model, inputs, kind, index, count)
    frames, _, height, width = inputs["pixel_values_videos"][index].shape
    side = round((count / frames) ** 0.5)
    if frames * side * side != count:
        return None
    return grid_layout((frames, side, side), (width, height))


def qwen_layout(model: PreTrainedModel, inputs: Mapping[str, Any], kind: Kind, index: int, count: int) -> Layout | None:
    """Qwen-VL: (t, h, w) patches merged 2 x 2; the picture is scaled to a multiple of the merged patch."""
    vision = model.config.vision_config
    steps, rows, columns = (int(size) for size in inputs[f"{kind}_grid_thw"][index])
    merged = (steps, rows // vision.spatial_merge_size, columns // vision.spatial_merge_size)
    canvas = (columns * vision.patch_size, rows * vision.patch_size)
    return grid_layout(merged, canvas, "stretch", vision.temporal_patch_size if kind == "video" else 1)


FAMILIES = (
    Family("llava", ("image",), "compact", llava_layout, "llava-hf/llava-1.5-7b-hf"),
    Family("llava_next", ("image",), "compact", anyres_layout, "llava-hf/llava-v1.6-vicuna-7b-hf"),
    Family("llava_next_video", ("image", "video"), "compact", next_video_layout, "llava-hf/LLaVA-NeXT-Video-7B-hf"),
    Family("qwen2_5_vl", ("image", "video"), "original", qwen_layout, "Qwen/Qwen2.5-VL-7B-Instruct"),
)


def supported_families() -> tuple[Family, ...]:
    """The model families that can be pruned."""
    return FAMILIES


def family_of(model: PreTrainedModel) -> Family:
    """The family of a model.

    Raises:
        UnsupportedModelError: no family is listed for the model's type.
    """
    model_type = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    for family in FAMILIES:
        if family.name == model_type:
            return family
    names = ", ".join(family.name for family in FAMILIES)
    raise UnsupportedModelError(f"no adapter for {model_type!r}; supported families: {names} (see `divprune families`)")
