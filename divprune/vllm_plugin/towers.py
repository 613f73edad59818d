"""How each family makes tokens of patches: what was captured of patches is packed the same way."""

from collections.abc import Mapping
from functools import cached_property
from math import isqrt
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from divprune.methods import ItemContext
from divprune.methods.grids import packed_pieces
from divprune.methods.item_context import Modality, Piece
from divprune.vllm_plugin.tower_model import TowerModel


class SquareTower(TowerModel):
    """LLaVA: square images, of which every patch becomes a token."""

    mixes_patches = True

    @cached_property
    def side(self) -> int:
        """Patches along each side of an image, or tile."""
        vision = self.config.vision_config
        return int(vision.image_size // vision.patch_size)

    def num_patches(self, modality: Modality, num_items: int, kwargs: Mapping[str, Any]) -> list[int]:
        """Count the patches of one square an item."""
        return [self.side**2] * num_items

    def token_values(self, modality: Modality, index: int, kwargs: Mapping[str, Any], values: Tensor) -> Tensor:
        """Return the values."""
        return values


class AnyresTower(SquareTower):
    """LLaVA-NeXT: the whole image, its tiles and their image newline tokens are one item."""

    def num_patches(self, modality: Modality, num_items: int, kwargs: Mapping[str, Any]) -> list[int]:
        """Count the patches of all tiles, the whole image among them, or of all frames."""
        pixels = kwargs["pixel_values" if modality == "image" else "pixel_values_videos"]
        return [len(each) * self.side**2 for each in pixels]

    def token_values(self, modality: Modality, index: int, kwargs: Mapping[str, Any], values: Tensor) -> Tensor:
        """Have the family's own method put tiles together, with zeros for newline tokens."""
        stand_in = SimpleNamespace(config=self.config, image_newline=values.new_zeros(values.shape[1]))
        return self.packed(stand_in, kwargs["image_sizes"][index], values.unflatten(0, (-1, self.side**2)))

    def packed(self, stand_in: Any, image_size: Tensor, values: Tensor) -> Tensor:
        """Call the family's own method, whose `self` is a stand-in with another newline token."""
        return type(self)._merge_image_patch_embeddings(stand_in, image_size, values, strategy="spatial_unpad")

    def pieces(self, context: ItemContext, has_patch: Tensor) -> tuple[Piece, ...] | None:
        """Return the grids of an image: the whole one, and its tiles put together."""
        return packed_pieces(has_patch, self.side) if context.modality == "image" else None


class InterpolatedRows(AnyresTower):
    """LLaVA-OneVision: tiles scaled down if many; a video is its frames, pooled, and one newline token."""

    mixes_patches = False

    def token_values(self, modality: Modality, index: int, kwargs: Mapping[str, Any], values: Tensor) -> Tensor:
        """Pool the frames of a video; an image is packed as its features are."""
        if modality == "image":
            return super().token_values(modality, index, kwargs, values)
        pooled = self.apply_pooling(values.unflatten(0, (-1, self.side**2))).flatten(0, 1)
        return torch.cat([pooled, pooled.new_zeros(1, pooled.shape[1])])

    def packed(self, stand_in: Any, image_size: Tensor, values: Tensor) -> Tensor:
        """Call the family's own method, which is given the newline token too."""
        return type(self)._merge_image_patch_embeddings(
            stand_in, image_size, values, image_newline=stand_in.image_newline, strategy="spatial_unpad"
        )


class ShuffledTower(TowerModel):
    """InternVL: tiles, in which four patches that lie together become one token."""

    @cached_property
    def patch_grid(self) -> tuple[int, int]:
        """Rows and columns of a tile's patches."""
        vision = self.config.vision_config
        rows, columns = (side // patch for side, patch in zip(vision.image_size, vision.patch_size, strict=True))
        return rows, columns

    def num_patches(self, modality: Modality, num_items: int, kwargs: Mapping[str, Any]) -> list[int]:
        """Count the patches of all tiles."""
        rows, columns = self.patch_grid
        return [int(tiles) * rows * columns for tiles in kwargs["image_num_patches"]]

    def token_values(self, modality: Modality, index: int, kwargs: Mapping[str, Any], values: Tensor) -> Tensor:
        """Average over the patches that the family's own shuffle puts together."""
        numbers = torch.arange(len(values), device=values.device).view(-1, *self.patch_grid, 1)
        return values[self.pixel_shuffle(numbers, scale_factor=self.downsample_ratio).flatten(0, 2)].mean(dim=1)

    def pieces(self, context: ItemContext, has_patch: Tensor) -> tuple[Piece, ...] | None:
        """Return the grid of each tile."""
        side = isqrt(self.num_image_token)
        return tuple(Piece(start, side, side, side) for start in range(0, len(has_patch), side**2))


class MergedTower(TowerModel):
    """Qwen-VL: patches of a token follow each other; frames of all items are one sequence, and see themselves alone."""

    def tower(self) -> nn.Module:
        """Return the vision tower."""
        return self.visual

    def projector(self) -> nn.Module:
        """Return what merges patches to tokens."""
        return self.visual.merger

    def num_patches(self, modality: Modality, num_items: int, kwargs: Mapping[str, Any]) -> list[int]:
        """Count the patches of all frames."""
        return [int(grid.prod()) for grid in kwargs[f"{modality}_grid_thw"]]

    def attending_patches(self, modality: Modality, kwargs: Mapping[str, Any]) -> list[int] | None:
        """Count the patches of each frame."""
        return [
            rows * columns for steps, rows, columns in kwargs[f"{modality}_grid_thw"].tolist() for _ in range(steps)
        ]

    def token_values(self, modality: Modality, index: int, kwargs: Mapping[str, Any], values: Tensor) -> Tensor:
        """Average over the patches of each token."""
        return values.unflatten(0, (-1, self.config.vision_config.spatial_merge_size**2)).mean(dim=1)


class WindowedTower(MergedTower):
    """Qwen2.5-VL: the same, but the tower works in the order of its windows."""

    def projector(self) -> nn.Module:
        """Return the first part of what merges patches; vLLM calls the whole, which it may compile, past hooks."""
        return self.visual.merger.ln_q

    def token_values(self, modality: Modality, index: int, kwargs: Mapping[str, Any], values: Tensor) -> Tensor:
        """Average over the patches of each token, and put tokens back into their order."""
        windows, _ = self.visual.get_window_index_thw(*kwargs[f"{modality}_grid_thw"][index].tolist())
        return super().token_values(modality, index, kwargs, values)[windows.argsort().to(values.device)]
