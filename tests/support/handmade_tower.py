"""The vision encoders of Qwen-VL written out plainly, on some of an image's units: one patch, one pair at a time.

Only what lies outside attention and places is the model's own: linear layers, norms, feed-forward blocks and mergers.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Patch:
    """Where a patch lies: number of the image or video, frame, row and column in patches."""

    item: int
    frame: int
    row: int
    column: int

    def window(self, side: int | None) -> tuple[int, ...]:
        """Patches with the same one see each other; `side` is in patches, None for a whole frame."""
        return (self.item, self.frame, *(() if side is None else (self.row // side, self.column // side)))


def patches_of(grids: Tensor, side: int) -> list[Patch]:
    """All patches of a call in the order in which processors write them: unit by unit."""
    return [
        Patch(item, frame, unit_row * side + row, unit_column * side + column)
        for item, (frames, rows, columns) in enumerate(grids.tolist())
        for frame in range(frames)
        for unit_row in range(rows // side)
        for unit_column in range(columns // side)
        for row in range(side)
        for column in range(side)
    ]


def redundant_by_hand(
    units: Tensor, grids: list[tuple[int, int, int]], side: int | None, tolerance: float
) -> list[int]:
    """Which unit is encoded in each unit's place; one unit after the other, as somebody reads a page."""
    instead: list[int] = []
    for frames, rows, columns in grids:
        for _ in range(frames):
            for row in range(rows):
                for column in range(columns):
                    here = len(instead)
                    neighbours = []
                    if column and (side is None or column % side):
                        neighbours.append(here - 1)
                    if row and (side is None or row % side):
                        neighbours.append(here - columns)
                    told = [
                        instead[there]
                        for there in neighbours
                        if float((units[here] - units[instead[there]]).abs().max()) <= tolerance
                    ]
                    instead.append(told[0] if told else here)
    return instead


def tower_by_hand(tower: Any, pixels: Tensor, grids: Tensor, units: list[int]) -> tuple[Tensor, list[Tensor]]:
    """Encode some units of a call as if the others were not there.

    Returns:
        (n, d) tokens in the order of `units`, and the same for each deeper decoder layer that has some.
    """
    side = tower.spatial_merge_size
    numbers = [unit * side**2 + inner for unit in units for inner in range(side**2)]
    everything = patches_of(grids, side)
    patches = [everything[number] for number in numbers]
    states = tower.patch_embed(pixels[numbers])
    if hasattr(tower, "pos_embed"):
        states = states + torch.stack([_learned(tower, patch, grids) for patch in patches])
    window_size = getattr(tower, "window_size", None)
    window = None if window_size is None else window_size // tower.patch_size
    deep = []
    for layer, block in enumerate(tower.blocks):
        sees = None if window is None or layer in tower.fullatt_block_indexes else window
        states = states + _attention(block.attn, block.norm1(states), patches, sees)
        states = states + block.mlp(block.norm2(states))
        if layer in getattr(tower, "deepstack_visual_indexes", ()):
            deep.append(tower.deepstack_merger_list[len(deep)](states))
    return tower.merger(states), deep


def _learned(tower: Any, patch: Patch, grids: Tensor) -> Tensor:
    """The learned position of a patch: between four of a square table."""
    last = tower.num_grid_per_side - 1
    _, rows, columns = grids[patch.item].tolist()
    row, column = patch.row * last / max(rows - 1, 1), patch.column * last / max(columns - 1, 1)
    total = torch.zeros(tower.pos_embed.embedding_dim)
    for near_row in {int(row), min(int(row) + 1, last)}:
        for near_column in {int(column), min(int(column) + 1, last)}:
            weight = (1 - abs(row - near_row)) * (1 - abs(column - near_column))
            total = total + weight * tower.pos_embed.weight[near_row * (last + 1) + near_column]
    return total


def _attention(attention: Any, states: Tensor, patches: list[Patch], window: int | None) -> Tensor:
    heads = attention.num_heads
    size = states.shape[-1] // heads
    if hasattr(attention, "qkv"):
        joint = attention.qkv(states)
        queries, others = joint.split([states.shape[-1], joint.shape[-1] - states.shape[-1]], dim=-1)
        keys, values = others.chunk(2, dim=-1)
    else:
        queries, keys, values = attention.q(states), attention.k(states), attention.v(states)
    queries, keys, values = (
        each.unflatten(-1, (-1, size)).repeat_interleave(heads * size // each.shape[-1], dim=1)
        for each in (queries, keys, values)
    )
    turned = [_turned(each, patches) for each in (queries, keys)]
    answers = []
    for here, patch in enumerate(patches):
        seen = [there for there, other in enumerate(patches) if other.window(window) == patch.window(window)]
        scores = (turned[0][here] * turned[1][seen]).sum(dim=-1) / size**0.5  # (seen, heads)
        answers.append((scores.softmax(dim=0).unsqueeze(-1) * values[seen]).sum(dim=0).flatten())
    return attention.proj(torch.stack(answers))


def _turned(vectors: Tensor, patches: list[Patch]) -> Tensor:
    """Rotary positions: the first half of the frequencies turns with the row, the second with the column."""
    size = vectors.shape[-1]
    speeds = [10000.0 ** (-step / (size // 2)) for step in range(0, size // 2, 2)]
    angles = torch.tensor(
        [[patch.row * speed for speed in speeds] + [patch.column * speed for speed in speeds] for patch in patches]
    ).unsqueeze(1)
    first, second = vectors.chunk(2, dim=-1)
    return torch.cat(
        [first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], dim=-1
    )
