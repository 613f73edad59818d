"""DivPrune: keep the tokens that differ most from each other."""

from dataclasses import dataclass
from math import inf
from typing import ClassVar

from torch import Tensor

from divprune.methods.base import Fidelity, ItemContext, Method, Paper, checked_layer
from divprune.selection import METRICS, refine, select


@dataclass(frozen=True)
class DivPrune(Method):
    """Greedy max-min diversity of the visual tokens (Algorithm 1 of the paper).

    S. R. Alvar, G. Singh, M. Akbari, Y. Zhang, "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal
    Models", CVPR 2025, https://arxiv.org/abs/2503.02175

    Attributes:
        metric: Distance between two tokens: "cosine" (the paper's choice), "l1" or "l2" (its ablation).
        layer: 0 chooses before the LLM. K > 0 lets all tokens run through decoder layers 0 to K - 1, chooses
            by the hidden states that enter layer K, and drops the others from there on.
        refine: Swap tokens behind the greedy picks as long as the smallest distance between two kept ones grows
            (`divprune.selection.local_search`). The max-min distance is never lower; it takes 3 to 20 times as long.
        min_distance: Stop before the first pick that is nearer than this to a kept token: an image of much that is
            alike keeps few tokens. `keep_ratio` or `num_keep`, if given, are then the most that stays.
    """

    name: ClassVar[str] = "divprune"
    paper: ClassVar[Paper | None] = Paper(
        title="DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models",
        year=2025,
        url="https://arxiv.org/abs/2503.02175",
        citation="Alvar, Singh, Akbari, Zhang, CVPR 2025",
    )
    fidelity: ClassVar[Fidelity] = "exact"
    metric: str = "cosine"
    layer: int = 0
    refine: bool = False
    min_distance: float = 0.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        if not 0 <= self.min_distance < inf:
            raise ValueError(f"min_distance must be a distance of at least 0, got {self.min_distance}")
        if self.metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(map(repr, METRICS))}, got {self.metric!r}")
        checked_layer(self.layer, 0)

    @property
    def layers(self) -> tuple[int, ...]:
        return (self.layer,) if self.layer else ()

    @property
    def finds_count(self) -> bool:
        return self.min_distance > 0

    @property
    def may_keep_fewer(self) -> bool:
        return self.min_distance > 0

    def adaptive_count(self, visual_tokens: Tensor, context: ItemContext) -> int:
        """Return M: `min_distance` is where the picks end."""
        return len(visual_tokens)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep` unless they are refined."""
        picks = select(visual_tokens, num_keep=num_keep, metric=self.metric, min_distance=self.min_distance or None)
        if self.refine:
            picks = refine(picks, visual_tokens, self.metric)
        return picks.selection_order
