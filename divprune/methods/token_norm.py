"""The longest tokens: a control that looks at nothing but their size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.lazy_torch import torch
from divprune.methods.base import Fidelity, Method
from divprune.methods.item_context import ItemContext

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TokenNorm(Method):
    """Largest Euclidean length of the visual tokens; a control without a paper."""

    name: ClassVar[str] = "norm"
    nested: ClassVar[bool] = True
    fidelity: ClassVar[Fidelity] = "unverified"

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep`, ties go to the lowest index."""
        lengths: Tensor = torch.linalg.vector_norm(visual_tokens.double(), dim=-1)
        return lengths.sort(descending=True, stable=True).indices[:num_keep]
