"""How many of the encoder's tokens belong to each image or video.

Encoders hand their tokens over per image, per frame, per tile or per row of the batch. What shares one budget should be
the image as the user gave it, so some families are regrouped here.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from divprune.huggingface.encoding.encoder_output import entry_sizes
from divprune.methods.item_context import Modality

ItemSizes = Callable[[Mapping[str, Any], Modality, ModelOutput, Tensor], list[int]]
"""`sizes(inputs, modality, encoder_output, placeholder_mask)`: tokens of each item in the order of their placeholders.
`placeholder_mask` is (B, L) bool and holds as many placeholders as the output has tokens."""


def video_sizes(
    inputs: Mapping[str, Any], modality: Modality, output: ModelOutput, placeholder_mask: Tensor
) -> list[int]:
    """Video-LLaVA: one entry a frame, all videos equally long. Without the pixels each frame counts as an item."""
    sizes = entry_sizes(output)
    videos = inputs.get("pixel_values_videos")
    if modality == "image" or videos is None:
        return sizes
    return [sum(sizes) // len(videos)] * len(videos)


def run_sizes(
    inputs: Mapping[str, Any], modality: Modality, output: ModelOutput, placeholder_mask: Tensor
) -> list[int]:
    """InternVL: one entry a tile; the tiles of one image stand in one unbroken run of placeholders."""
    return _runs(placeholder_mask, longest_gap=0)


def spaced_run_sizes(
    inputs: Mapping[str, Any], modality: Modality, output: ModelOutput, placeholder_mask: Tensor
) -> list[int]:
    """Ovis2: one token stands between the tiles of an image, at least two between images (an end and a start)."""
    return _runs(placeholder_mask, longest_gap=1)


def _runs(placeholder_mask: Tensor, longest_gap: int) -> list[int]:
    """Placeholders of each run, in which at most `longest_gap` other tokens follow one another."""
    rows, columns = placeholder_mask.nonzero(as_tuple=True)
    follows = (rows[1:] == rows[:-1]) & (columns[1:] <= columns[:-1] + 1 + longest_gap)
    ends = torch.cat([~follows, torch.ones_like(follows[:1])]) if len(rows) > 1 else rows.new_ones(len(rows)).bool()
    return _between(ends, 1)


def tile_sizes(
    inputs: Mapping[str, Any], modality: Modality, output: ModelOutput, placeholder_mask: Tensor
) -> list[int]:
    """Idefics3, SmolVLM, Aya Vision: equal tiles, each led by a tag; the whole image comes last, led by its own.

    That tag is not in the model's configuration, but it leads the last tile of every row, and so it is known.
    """
    rows, columns = placeholder_mask.nonzero(as_tuple=True)
    tile_size = len(rows) // len(output["last_hidden_state"])
    tile_rows, tile_columns = rows[::tile_size], columns[::tile_size]
    tags = inputs["input_ids"][tile_rows, (tile_columns - 1).clamp(min=0)]
    # A later write wins: what remains of a row is the tag of its last tile.
    whole = dict(zip(tile_rows.tolist(), tags.tolist(), strict=True))
    ends = [tag == whole[row] for row, tag in zip(tile_rows.tolist(), tags.tolist(), strict=True)]
    return _between(torch.tensor(ends), tile_size)


def slice_sizes(
    inputs: Mapping[str, Any], modality: Modality, output: ModelOutput, placeholder_mask: Tensor
) -> list[int]:
    """MiniCPM-V: one entry for the whole image, led by its tag, then one a slice, led by another.

    Those tags are not in the model's configuration, but the first entry of every row is a whole image.
    """
    rows, columns = placeholder_mask.nonzero(as_tuple=True)
    sizes = torch.tensor(entry_sizes(output))
    starts = (sizes.cumsum(0) - sizes).to(rows.device)
    tags = inputs["input_ids"][rows[starts], (columns[starts] - 1).clamp(min=0)].tolist()
    whole: dict[int, int] = {}
    items: list[int] = []
    for row, tag, size in zip(rows[starts].tolist(), tags, sizes.tolist(), strict=True):
        if whole.setdefault(row, tag) == tag:
            items.append(0)
        items[-1] += size
    return items


def _between(ends: Tensor, size: int) -> list[int]:
    """Distances between the True entries, the start counting as one, times `size`."""
    positions = torch.cat([torch.tensor([-1]), ends.nonzero().squeeze(-1).cpu()])
    distances: list[int] = (positions.diff() * size).tolist()
    return distances
