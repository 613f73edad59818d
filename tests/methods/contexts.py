"""Items with everything that a method may ask for."""

import torch
from torch import Tensor

from divprune.methods import FitPrune, FitPruneRecipe, ItemContext, Method, get_method
from divprune.methods.item_context import Piece

CALIBRATED: dict[str, Method] = {"fitprune": FitPrune(FitPruneRecipe((20, 10, 5), 60))}
"""Methods that have no defaults."""

VIDEO = {"evs", "dycoke", "vidcom2", "prunevid", "holitom", "fastvid", "flashvid"}
"""Methods that refuse images."""


def made(name: str) -> Method:
    """Any registered method."""
    return CALIBRATED.get(name) or get_method(name)


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def full_item(
    grid: tuple[int, int, int] = (1, 6, 10), seed: int = 0, kind: str = "image"
) -> tuple[Tensor, ItemContext]:
    """Visual tokens (M, 8) on a grid, and all there is to know about them."""
    total = grid[0] * grid[1] * grid[2]
    context = ItemContext(
        modality=kind,
        grid=grid,
        pieces=tuple(Piece(frame * grid[1] * grid[2], *grid[1:], grid[2]) for frame in range(grid[0])),
        vision_attention=noise(2, total, seed=seed + 1).softmax(dim=-1),
        early_vision_attention=noise(2, total, seed=seed + 12).softmax(dim=-1),
        vision_keys=noise(2, total, 4, seed=seed + 2),
        patch_features=noise(total, 12, seed=seed + 3),
        text_embeddings=noise(5, 8, seed=seed + 4),
        input_tokens=noise(total, 8, seed=seed + 5),
        attention=noise(2, total, seed=seed + 6).softmax(dim=-1),
        text_attention=noise(2, 5, total, seed=seed + 7).softmax(dim=-1),
        visual_attention=noise(2, total, seed=seed + 8).softmax(dim=-1),
        visual_peak_attention=noise(total, seed=seed + 12).softmax(dim=-1),
        keys=noise(2, total, 4, seed=seed + 9),
        text_keys=noise(2, 5, 4, seed=seed + 10),
        visual_query=noise(4, 4, seed=seed + 13),
        text_states=noise(5, 8, seed=seed + 11),
        final_norm=lambda states: states * torch.linspace(0.5, 2, 8).to(states),
    )
    return noise(total, 8, seed=seed), context
