"""A uniformly random subset: the baseline that every method has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.lazy_torch import torch
from divprune.methods.base import Fidelity, Method
from divprune.methods.item_context import ItemContext

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RandomTokens(Method):
    """Random tokens, drawn afresh for each item.

    The draw depends on `seed`, `ItemContext.seed`, `ItemContext.index` and the number of tokens and on nothing else,
    so reruns and other devices agree and two images of one call differ.

    Attributes:
        seed: Seed of the draws, at least 0.
    """

    name: ClassVar[str] = "random"
    nested: ClassVar[bool] = True
    fidelity: ClassVar[Fidelity] = "unverified"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the seed."""
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep`."""
        import numpy

        draws = numpy.random.default_rng([self.seed, context.seed, context.index])
        order = draws.permutation(len(visual_tokens))[:num_keep]
        return torch.from_numpy(order).to(visual_tokens.device)
