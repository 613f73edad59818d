"""Generated sets of tokens of the kinds that make selections go wrong."""

import torch
from torch import Tensor

KINDS = (
    "gaussian",
    "duplicates",
    "zero_rows",
    "constant",
    "clusters",
    "near_constant",
    "integers",
    "one_hot",
    "offset",
)


def tokens(kind: str, total: int, width: int, seed: int) -> Tensor:
    """Return (total, width) float32 tokens."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(total, width, generator=draw)
    if kind == "duplicates":
        return rows[torch.randint(total, (total,), generator=draw)]
    if kind == "zero_rows":
        return rows * (torch.rand(total, 1, generator=draw) < 0.7)
    if kind == "constant":
        return rows[:1].repeat(total, 1)
    if kind == "clusters":
        return rows[torch.randint(max(1, total // 8), (total,), generator=draw)] + 1e-3 * rows
    if kind == "near_constant":
        return rows[:1] + 1e-2 * rows
    if kind == "integers":
        return rows.mul(2).round()
    if kind == "one_hot":
        return torch.eye(width)[torch.randint(width, (total,), generator=draw)]
    return rows + 3 if kind == "offset" else rows
