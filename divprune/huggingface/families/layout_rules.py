"""Where each family's visual tokens sit in the picture, as far as the model's inputs tell."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from divprune.huggingface.families.token_layout import Layout, grid_cells, grid_layout
from divprune.huggingface.model_inputs import Kind

LayoutRule = Callable[[PreTrainedModel, Mapping[str, Any], Kind, int, int], Layout | None]
"""`rule(model, inputs, kind, index, num_visual_tokens)`: the places of one item's tokens, None where they are unknown.
`index` counts the items of that kind in the call."""


def no_layout(model: PreTrainedModel, inputs: Mapping[str, Any], kind: Kind, index: int, count: int) -> Layout | None:
    """The inputs do not tell."""
    return None


def qwen_layout(model: PreTrainedModel, inputs: Mapping[str, Any], kind: Kind, index: int, count: int) -> Layout | None:
    """Qwen-VL and GLM-4V: (t, h, w) patches merged 2 x 2; the picture is scaled to a multiple of the merged patch."""
    vision = model.config.vision_config
    steps, rows, columns = (int(size) for size in inputs[f"{kind}_grid_thw"][index])
    merged = (steps, rows // vision.spatial_merge_size, columns // vision.spatial_merge_size)
    canvas = (columns * vision.patch_size, rows * vision.patch_size)
    return grid_layout(merged, canvas, "stretch", vision.temporal_patch_size if kind == "video" else 1)


def row_break_layout(
    model: PreTrainedModel, inputs: Mapping[str, Any], kind: Kind, index: int, count: int
) -> Layout | None:
    """HY 4: as Qwen-VL, with a newline token behind every row of every frame."""
    vision = model.config.vision_config
    steps, height, width = (int(size) for size in inputs[f"{kind}_grid_thw"][index])
    rows, columns = height // vision.spatial_merge_size, width // vision.spatial_merge_size
    newlines = torch.full((rows, 1, 4), torch.nan)
    cells = torch.cat([grid_cells(rows, columns).unflatten(0, (rows, columns)), newlines], dim=1).flatten(0, 1)
    frame = torch.arange(steps).repeat_interleave(len(cells))
    canvas = (width * vision.patch_size, height * vision.patch_size)
    return _checked(Layout(cells.repeat(steps, 1), frame, canvas, "stretch"), count)


def ragged_layout(
    model: PreTrainedModel, inputs: Mapping[str, Any], kind: Kind, index: int, count: int
) -> Layout | None:
    """Pixtral and Mistral 3: the picture keeps its shape, patches are merged by `spatial_merge_size`.

    Apertus 1.5 has no patches, but a code for each square that its convolutions shrink to one pixel.
    """
    height, width = (int(side) for side in inputs["image_sizes"][index])
    vision = model.config.vision_config
    square = vision.patch_size if hasattr(vision, "patch_size") else vision.spatial_scale_factor
    merged = square * getattr(model.config, "spatial_merge_size", 1)
    return _checked(grid_layout((1, height // merged, width // merged), (width, height), "stretch"), count)


def square_layout(
    model: PreTrainedModel, inputs: Mapping[str, Any], kind: Kind, index: int, count: int
) -> Layout | None:
    """One square grid over a picture that was stretched to the encoder's size.

    Crops that a processor adds (Gemma 3's pan and scan) are pictures of their own.
    """
    height, width = inputs["pixel_values"].shape[-2:]
    side = round(count**0.5)
    return _checked(grid_layout((1, side, side), (width, height), "stretch"), count)


def tiled_layout(
    model: PreTrainedModel, inputs: Mapping[str, Any], kind: Kind, index: int, count: int
) -> Layout | None:
    """A picture of one tile is one grid; how several tiles lie in the picture is not among the inputs."""
    config = model.config
    # Tokens are merged by the pixel shuffle: Idefics3 and SmolVLM, Aya Vision, and InternVL, which gives the inverse.
    for name in ("scale_factor", "downsample_factor"):
        if hasattr(config, name):
            merged = getattr(config, name)
            break
    else:
        merged = round(1 / config.downsample_ratio)
    side = inputs["pixel_values"].shape[-1] // (_first(config.vision_config.patch_size) * merged)
    return square_layout(model, inputs, kind, index, count) if count == side * side else None


def gemma4_layout(
    model: PreTrainedModel, inputs: Mapping[str, Any], kind: Kind, index: int, count: int
) -> Layout | None:
    """Gemma 4: patches come with their (x, y), pooled k x k; all frames of a video have one size."""
    vision = model.config.vision_config
    positions, frames = inputs[f"{kind}_position_ids"], 1
    if kind == "image":
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
