"""OTPrune: the subset whose distribution is nearest to that of all tokens, by a determinant."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from divprune.methods.base import ItemContext, Method, Paper
from divprune.methods.scores import checked_number
from divprune.selection.distances import full_precision
from divprune.selection.greedy import greedy_picks
from divprune.selection.objectives import Determinant


@dataclass(frozen=True)
class OTPrune(Method):
    """Greedy maximum of log det(I + gamma V_C V_C^T): tokens whose distribution stays near that of all.

    V holds the visual tokens, each divided by the standard deviation of its components; the greedy loop works on the
    tokens' Gram matrix. Whether the paper also centres them is not known to us; they are not centred here.

    Attributes:
        gamma: Weight of the tokens against the identity, above 0.
    """

    name: ClassVar[str] = "otprune"
    paper: ClassVar[Paper | None] = Paper("OTPrune", None, None, "OTPrune")
    gamma: float = 0.01

    def __post_init__(self) -> None:
        """Check gamma."""
        checked_number("gamma", self.gamma, 1e-12)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep`."""
        tokens = visual_tokens.to(torch.promote_types(visual_tokens.dtype, torch.float32))
        deviation = tokens.std(dim=-1, correction=0, keepdim=True)
        scaled = torch.where(deviation > 0, tokens / deviation, 0.0)
        with full_precision(tokens.device):
            kernel = (self.gamma * (scaled @ scaled.mT)).double()
        kernel.diagonal().add_(1.0)
        return greedy_picks(Determinant(kernel.unsqueeze(0), num_keep), num_keep)[0]
