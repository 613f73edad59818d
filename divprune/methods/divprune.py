"""DivPrune: keep the tokens that differ most from each other."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from divprune.methods.base import ItemContext, Method, Paper, checked_layer
from divprune.selection import METRICS, refine, select


@dataclass(frozen=True)
class DivPrune(Method):
    """Greedy max-min diversity of the visual tokens (Algorithm 1 of the paper).

    S. R. Alvar, G. Singh, M. Akbari, Y. Zhang, "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal
    Models", CVPR 2025, https://arxiv.org/abs/2503.02175

    Attributes:
        metric: Distance between two tokens: "cosine" (the paper's choice), "l1" or "l2" (its ablation).
        layer: 0 chooses before the language model. K > 0 lets all tokens run through decoder layers 0 to K - 1, chooses
            by the hidden states that enter layer K, and drops the others from there on.
        refine: Swap tokens behind the greedy picks as long as the smallest distance between two kept ones grows
            (`divprune.selection.local_search`). The max-min distance is never lower; it takes 3 to 20 times as long.
    """

    name: ClassVar[str] = "divprune"
    paper: ClassVar[Paper | None] = Paper(
        title="DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models",
        year=2025,
        url="https://arxiv.org/abs/2503.02175",
        citation="Alvar, Singh, Akbari, Zhang, CVPR 2025",
    )
    metric: str = "cosine"
    layer: int = 0
    refine: bool = False

    def __post_init__(self) -> None:
        """Check the metric and the layer."""
        if self.metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(map(repr, METRICS))}, got {self.metric!r}")
        checked_layer(self.layer, 0)

    @property
    def layers(self) -> tuple[int, ...]:
        return (self.layer,) if self.layer else ()

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep` unless they are refined."""
        picks = select(visual_tokens, num_keep=num_keep, metric=self.metric)
        if self.refine:
            picks = refine(picks, visual_tokens, self.metric)
        return picks.selection_order
