"""Where each family's visual tokens sit in the image, as far as the model's inputs tell."""

from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

import torch
from torch import Tensor
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.modeling_llava_next import unpad_image

from divprune.huggingface.families.token_layout import Layout, Size, grid_cells, grid_layout
from divprune.huggingface.model_inputs import pixels_of
from divprune.methods.base import Modality

LayoutRule = Callable[[Any, Mapping[str, Any], Modality, int, int], Layout | None]
"""`rule(config, inputs, modality, index, num_visual_tokens)`: the places of one item's tokens, None where they are
unknown. `config` is the model's, `inputs` are what `model_inputs.layout_inputs` takes of a call, and `index` counts
the items of that modality in the call."""


def no_layout(config: Any, inputs: Mapping[str, Any], modality: Modality, index: int, count: int) -> Layout | None:
    """Tell that the inputs do not say where tokens sit."""
    return None


def qwen_layout(config: Any, inputs: Mapping[str, Any], modality: Modality, index: int, count: int) -> Layout | None:
    """Qwen-VL and GLM-4V: (t, h, w) patches merged 2 x 2; the image is scaled to a multiple of the merged patch."""
    vision = config.vision_config
    steps, rows, columns = (int(size) for size in inputs[f"{modality}_grid_thw"][index])
    merged = (steps, rows // vision.spatial_merge_size, columns // vision.spatial_merge_size)
    canvas = (columns * vision.patch_size, rows * vision.patch_size)
    return grid_layout(merged, canvas, "stretch", vision.temporal_patch_size if modality == "video" else 1)


def row_break_layout(
    config: Any, inputs: Mapping[str, Any], modality: Modality, index: int, count: int
) -> Layout | None:
    """HY 4: as Qwen-VL, with a newline token behind every row of every frame."""
    vision = config.vision_config
    steps, height, width = (int(size) for size in inputs[f"{modality}_grid_thw"][index])
    rows, columns = height // vision.spatial_merge_size, width // vision.spatial_merge_size
    newlines = torch.full((rows, 1, 4), torch.nan)
    cells = torch.cat([grid_cells(rows, columns).unflatten(0, (rows, columns)), newlines], dim=1).flatten(0, 1)
    frame = torch.arange(steps).repeat_interleave(len(cells))
    canvas = (width * vision.patch_size, height * vision.patch_size)
    return _checked(Layout(cells.repeat(steps, 1), frame, canvas, "stretch"), count)


def ragged_layout(config: Any, inputs: Mapping[str, Any], modality: Modality, index: int, count: int) -> Layout | None:
    """Pixtral and Mistral 3: the image keeps its shape, patches are merged by `spatial_merge_size`.

    Apertus 1.5 has no patches, but a code for each square that its convolutions shrink to one pixel.
    """
    height, width = (int(side) for side in inputs["image_sizes"][index])
    vision = config.vision_config
    square = vision.patch_size if hasattr(vision, "patch_size") else vision.spatial_scale_factor
    merged = square * getattr(config, "spatial_merge_size", 1)
    return _checked(grid_layout((1, height // merged, width // merged), (width, height), "stretch"), count)


def square_layout(config: Any, inputs: Mapping[str, Any], modality: Modality, index: int, count: int) -> Layout | None:
    """One square grid over an image that was stretched to the encoder's size.

    Crops that a processor adds (Gemma 3's pan and scan) are images of their own.
    """
    height, width = inputs["pixel_values"].shape[-2:]
    side = round(count**0.5)
    return _checked(grid_layout((1, side, side), (width, height), "stretch"), count)


def tiled_layout(config: Any, inputs: Mapping[str, Any], modality: Modality, index: int, count: int) -> Layout | None:
    """Lay one tile out as one grid; how several tiles lie in the image is not among the inputs."""
    # Tokens are merged by the pixel shuffle: Idefics3 and SmolVLM, Aya Vision, and InternVL, which gives the inverse.
    for name in ("scale_factor", "downsample_factor"):
        if hasattr(config, name):
            merged = getattr(config, name)
            break
    else:
        merged = round(1 / config.downsample_ratio)
    side = inputs["pixel_values"].shape[-1] // (_first(config.vision_config.patch_size) * merged)
    return square_layout(config, inputs, modality, index, count) if count == side * side else None


def gemma4_layout(config: Any, inputs: Mapping[str, Any], modality: Modality, index: int, count: int) -> Layout | None:
    """Gemma 4: patches come with their (x, y), pooled k x k; all frames of a video have one size."""
    vision = config.vision_config
    positions, frames = inputs[f"{modality}_position_ids"], 1
    if modality == "image":
        first = positions[index]
    elif inputs.get("num_frames_per_video") is None:
        first, frames = positions[index][0], len(positions[index])
    else:
        lengths = [int(length) for length in inputs["num_frames_per_video"]]
        first, frames = positions[sum(lengths[:index])], lengths[index]
    columns, rows = ((int(last) + 1) // vision.pooling_kernel_size for last in first.amax(0))
    patch = vision.pooling_kernel_size * vision.patch_size
    return _checked(grid_layout((frames, rows, columns), (columns * patch, rows * patch), "stretch"), count)


def _first(size: Any) -> int:
    return int(size if isinstance(size, int) else size[0])


def _checked(layout: Layout, count: int) -> Layout | None:
    return layout if len(layout.cells) == count else None


def llava_layout(config: Any, inputs: Mapping[str, Any], modality: Modality, index: int, count: int) -> Layout | None:
    """One grid of patches, led by the CLS token if the model keeps it (`vision_feature_select_strategy="full"`).

    With a Pixtral tower every image has a grid of its own size.
    """
    if inputs.get("image_sizes") is not None:
        return ragged_layout(config, inputs, modality, index, count)
    pixels = pixels_of(inputs, "image")
    if pixels is None:
        return None
    height, width = pixels[index].shape[-2:]
    patch_size = config.vision_config.patch_size
    grid = (1, height // patch_size, width // patch_size)
    num_patches = grid[1] * grid[2]
    layout = grid_layout(grid, (width, height))
    if count == num_patches:
        return layout
    if count == num_patches + 1:
        cells = torch.cat([torch.full((1, 4), torch.nan), layout.cells])
        return Layout(cells, torch.zeros(count, dtype=torch.int64), layout.canvas)
    return None


def anyres_layout(config: Any, inputs: Mapping[str, Any], modality: Modality, index: int, count: int) -> Layout | None:
    """LLaVA-NeXT: the whole image squeezed onto one square, then the unpadded tiles with a newline token a row."""
    return _with_base(config, inputs, index, _anyres_tiles(config, inputs, index), count)


def _anyres_tiles(config: Any, inputs: Mapping[str, Any], index: int) -> Tensor:
    height, width = (int(side) for side in inputs["image_sizes"][index])
    tile, patch_size = config.vision_config.image_size, config.vision_config.patch_size
    target_height, target_width = select_best_resolution((height, width), config.image_grid_pinpoints)
    return _tile_cells((width, height), (target_width, target_height), tile, patch_size)


def _with_base(config: Any, inputs: Mapping[str, Any], index: int, tiles: Tensor, count: int) -> Layout | None:
    height, width = (int(side) for side in inputs["image_sizes"][index])
    tile, patch_size = config.vision_config.image_size, config.vision_config.patch_size
    cells = torch.cat([grid_cells(tile // patch_size, tile // patch_size), tiles])
    if len(cells) != count:
        return None
    return Layout(cells, torch.zeros(count, dtype=torch.int64), (tile, tile), "stretch", (width, height))


def _tile_cells(image: Size, target: Size, tile: int, patch_size: int) -> Tensor:
    """Cells, as fractions of the image, of the tiles' patches that `unpad_image` leaves, and NaN for each newline."""
    within = torch.arange(tile // patch_size) * patch_size
    left, top = ((torch.arange(side // tile)[:, None] * tile + within).flatten() for side in target)
    corners = torch.stack(torch.meshgrid(left, top, indexing="xy"))
    unpadded: Tensor = unpad_image(corners, (image[1], image[0]))
    left_top = unpadded.permute(1, 2, 0).double()
    scale = min(target[0] / image[0], target[1] / image[1])
    size = torch.tensor([min(ceil(side * scale), limit) for side, limit in zip(image, target, strict=True)])
    offset = (torch.tensor(target) - size) // 2
    boxes = torch.cat([(left_top - offset) / size, (left_top + patch_size - offset) / size], dim=-1)
    newlines = torch.full((boxes.shape[0], 1, 4), torch.nan, dtype=boxes.dtype)
    return torch.cat([boxes.clamp(0, 1), newlines], dim=1).flatten(0, 1).float()


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
    """Return the tiles' patches as one grid, scaled to at most `anyres_max_N` times the base grid."""
    vision = config.vision_config
    side = vision.image_size // vision.patch_size
    full = _anyres_tiles(config, inputs, index)
    rows = int(full[:, 0].isnan().sum())
    columns = len(full) // rows - 1
    most = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))
    ratio = (rows * columns / (most * side**2)) ** 0.5
    rows, columns = int(rows // ratio), int(columns // ratio)
    newlines = torch.full((rows, 1, 4), torch.nan)
    tiles = torch.cat([grid_cells(rows, columns).unflatten(0, (rows, columns)), newlines], dim=1).flatten(0, 1)
    return _with_base(config, inputs, index, tiles, count)


def next_video_layout(
    config: Any, inputs: Mapping[str, Any], modality: Modality, index: int, count: int
) -> Layout | None:
    """LLaVA-NeXT-Video: images as LLaVA-NeXT; a video is frames of one pooled grid each."""
    return (
        anyres_layout(config, inputs, modality, index, count)
        if modality == "image"
        else _pooled_frames(inputs, index, count)
    )


def video_llava_layout(
    config: Any, inputs: Mapping[str, Any], modality: Modality, index: int, count: int
) -> Layout | None:
    """Video-LLaVA: images as LLaVA-1.5; every frame of a video is a grid led by its CLS token."""
    if modality == "image":
        return llava_layout(config, inputs, modality, index, count)
    frames, _, height, width = inputs["pixel_values_videos"][index].shape
    rows, columns = (side // config.vision_config.patch_size for side in (height, width))
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
