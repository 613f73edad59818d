"""Items with everything that a method may ask for."""

import torch
from torch import Tensor

from divprune.methods import ItemContext
from divprune.methods.base import Piece


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def full_item(
    grid: tuple[int, int, int] = (1, 6, 10), seed: int = 0, kind: str = "image"
) -> tuple[Tensor, ItemContext]:
    """Visual tokens (M, 8) on a grid, and all there is to know about them."""
    total = grid[0] * grid[1] * grid[2]
    context = ItemContext(
        kind=kind,
        grid=grid,
        pieces=tuple(Piece(frame * grid[1] * grid[2], *grid[1:], grid[2]) for frame in range(grid[0])),
        vision_attention=noise(2, total, seed=seed + 1).softmax(dim=-1),
        vision_keys=noise(2, total, 4, seed=seed + 2),
        patch_features=noise(total, 12, seed=seed + 3),
        text_embeddings=noise(5, 8, seed=seed + 4),
    )
    return noise(total, 8, seed=seed), context
