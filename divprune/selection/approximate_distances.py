"""Who is probably near whom, several times cheaper than the distances: not a result, only a hint where to look.

Products of bfloat16 numbers cost a quarter of float32 ones and less where the hardware has them. Who is nearest to whom
mostly survives the rounding; how near is then computed at full precision, and only that decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from divprune.lazy_torch import torch
from divprune.selection.distances import Distances, picked

if TYPE_CHECKING:
    from torch import Tensor


class RoughDistances:
    """Who is probably near whom.

    For unit vectors a and b the cosine distance is |a - b|^2 / 2, which does not change when a common vector is taken
    from both. So the tokens are centred first: rounding then costs little even where all of them look the same way.

    Attributes:
        origin: `nearness` is about `origin` minus the distance.
    """

    def __init__(self, distances: Distances) -> None:
        """Copy the tokens to bfloat16 if that pays; otherwise use the exact distances."""
        self._distances = distances
        self._tokens: Tensor | None = None
        self.origin = 0.0
        if distances.metric == "cosine" and multiplies_bfloat16(distances.tokens.device):
            self._tokens, square = distances.centred_unit_tokens(torch.bfloat16)
            # Differences of distances count: what most of them have in common would only take digits.
            self.origin = float(square.mean())
            self._shift = ((self.origin - square) / 2).bfloat16()

    def nearness(self, rows: Tensor, columns: Tensor | slice) -> Tensor:
        """Return (n, m) numbers, larger for nearer, of n tokens `rows` and m tokens `columns`."""
        if self._tokens is None:
            return self._distances.block(rows, columns).neg_()
        product = picked(self._tokens, rows) @ picked(self._tokens, columns).mT
        return product.add_(self._shift[rows].unsqueeze(1)).add_(self._shift[columns])


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether the device has instructions for products of bfloat16 numbers."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return device.type == "cpu" and bool(able.get("avx512_bf16") or able.get("amx_bf16"))
