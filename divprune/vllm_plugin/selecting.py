"""Which rows of an item's visual tokens stay."""

import torch
from torch import Tensor

from divprune.methods import ItemContext, Method
from divprune.methods.base import Modality
from divprune.methods.grids import Grid


def kept_rows(method: Method, visual_tokens: Tensor, num_keep: int, modality: Modality, grid: Grid | None) -> Tensor:
    """Choose the tokens of one item; what an item keeps depends on nothing but its tokens.

    An item is encoded alone or with others, now or when it has left the encoder cache. So `ItemContext.index` is always
    0, and random draws differ between items by their size only.

    Args:
        method: The method.
        visual_tokens: (M, d) after the projector.
        num_keep: k, between 1 and M.
        modality: What the tokens show.
        grid: (frames, rows, columns) of the tokens, or None.

    Returns:
        (k,) int64, ascending.
    """
    # A model whose activations overflow must not take the server down with it.
    finite = torch.nan_to_num(visual_tokens)
    with torch.no_grad():
        picks = method.select(finite, num_keep, ItemContext(modality=modality, grid=grid))
    return picks.sort().values
