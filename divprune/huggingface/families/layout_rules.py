"""Where each family's visual tokens sit in the image, as far as the model's inputs tell."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from divprune.huggingface.families.token_layout import Layout, grid_cells, grid_layout
from divprune.huggingface.model_inputs import pixels_of
from divprune.methods.item_context import Modality

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
    newline_row = torch.arange(steps * rows).repeat_interleave(columns + 1)
    return _checked(Layout(cells.repeat(steps, 1), frame, canvas, "stretch", newline_row=newline_row), count)


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
