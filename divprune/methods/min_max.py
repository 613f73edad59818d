"""The least diverse tokens: what DivPrune's rule does when it is turned around."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.methods.base import Fidelity, Method
from divprune.methods.divprune import DivPrune
from divprune.methods.item_context import ItemContext
from divprune.selection.distances import Distances, full_precision
from divprune.selection.greedy import greedy_picks
from divprune.selection.objectives import Closeness

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MinMax(Method):
    """Least diverse tokens: each pick minimises the largest cosine distance to those already chosen.

    The control of DivPrune's ablation, which names it and does not define it. Ours: the first pick is the token whose
    nearest neighbour is nearest; each next one is argmin_i max over chosen s of d(i, s).
    """

    name: ClassVar[str] = "minmax"
    nested: ClassVar[bool] = True
    paper = DivPrune.paper
    fidelity: ClassVar[Fidelity] = "unverified"

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep`."""
        with full_precision(visual_tokens.device):
            distance = Distances(visual_tokens, "cosine").matrix().unsqueeze(0)
        return greedy_picks(Closeness(distance), num_keep)[0]
