"""OTPrune: the subset whose distribution is nearest to that of all tokens, by a determinant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.methods.base import Fidelity, Method, Paper
from divprune.methods.item_context import ItemContext
from divprune.methods.scores import checked_number
from divprune.selection.distances import full_precision, unit_rows
from divprune.selection.greedy import greedy_picks
from divprune.selection.objectives import Determinant

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class OTPrune(Method):
    """Greedy maximum of log det(I + gamma G_C G_C^T): tokens whose distribution stays near that of all.

    G = V V^T, and V holds the visual tokens with each column (feature dimension) scaled to unit norm over the item's
    tokens; a column of zeros stays. In float64 throughout: the greedy loop works on I + gamma G G^T (M, M).

    Chen, Zhu, Li, Dong, Xiong, Wang, Qiu, Song, Wang, Tang, Wang, Razi, "OTPrune: Distribution-Aligned Visual Token
    Pruning via Optimal Transport", CVPR 2026, https://arxiv.org/abs/2602.20205

    Attributes:
        gamma: Weight of the tokens against the identity, above 0.
    """

    name: ClassVar[str] = "otprune"
    nested: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper(
        title="OTPrune: Distribution-Aligned Visual Token Pruning via Optimal Transport",
        year=2026,
        url="https://arxiv.org/abs/2602.20205",
        citation="Chen, Zhu, Li, Dong, Xiong, Wang, Qiu, Song, Wang, Tang, Wang, Razi, CVPR 2026",
    )
    fidelity: ClassVar[Fidelity] = "unverified"
    gamma: float = 0.01

    def __post_init__(self) -> None:
        """Check gamma."""
        checked_number("gamma", self.gamma, 1e-12)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep`."""
        columns = unit_rows(visual_tokens.double().mT)  # (d, M)
        with full_precision(columns.device):
            gram = columns.mT @ columns
            kernel = self.gamma * (gram @ gram.mT)
        kernel.diagonal().add_(1.0)
        return greedy_picks(Determinant(kernel.unsqueeze(0), num_keep), num_keep)[0]
