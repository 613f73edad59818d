"""Who is probably near whom, several times cheaper than the distances: not a result, only a hint where to look.

Products of bfloat16 numbers cost a quarter of float32 ones and less where the hardware has them. Who is nearest to whom
mostly survives the rounding; how near is then computed at full precision, and only that decides.
"""

import torch
from torch import Tensor

from divprune.selection.distances import Distances, picked


class RoughDistances:
    """Who is probably near whom.

    Attributes:
        origin: `nearness` is about `origin` minus the distance.
    """

    def __init__(self, distances: Distances) -> None:
        """Copy the tokens to bfloat16 if that pays; otherwise use the exact distances."""
        self._distances = distances
        self._tokens: Tensor | None = None
        self.origin = 0.0
        if distances.metric == "cosine" and multiplies_bfloat16(distances.tokens.device):
            self._tokens = distances.unit_tokens(torch.bfloat16)
            # Near tokens have the small distances that bfloat16 tells apart badly: leave out the 1 of 1 - cosine.
            self.origin = 1.0

    def nearness(self, rows: Tensor, columns: Tensor | slice) -> Tensor:
        """Return (n, m) numbers, larger for nearer, of n tokens `rows` and m tokens `columns`."""
        if self._tokens is None:
            return self._distances.block(rows, columns).neg_()
        return picked(self._tokens, rows) @ picked(self._tokens, columns).mT


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether the device has instructions for products of bfloat16 numbers."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return device.type == "cpu" and bool(able.get("avx512_bf16") or able.get("amx_bf16"))
