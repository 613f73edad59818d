"""DivPrune: keep the tokens that differ most from each other."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, ClassVar

from divprune.methods.base import Fidelity, Method, Paper, checked_layer
from divprune.methods.item_context import ItemContext
from divprune.selection import METRICS, refine, select
from divprune.selection.as_published import as_published_picks

if TYPE_CHECKING:
    from torch import Tensor

DISTANCE_DTYPES = ("full", "as-published")


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
        distance_dtype: "full" computes half types in float32. "as-published" computes distances in the tokens' own
            format and lets kept tokens compete, as the paper's numbers were made (`selection.as_published`): to
            reproduce those. In half types it keeps another set, and where it would take a token twice, fewer tokens.
    """

    name: ClassVar[str] = "divprune"
    nested: ClassVar[bool] = True
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
    distance_dtype: str = "full"

    def __post_init__(self) -> None:
        """Check the parameters."""
        if not 0 <= self.min_distance < inf:
            raise ValueError(f"min_distance must be a distance of at least 0, got {self.min_distance}")
        if self.metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(map(repr, METRICS))}, got {self.metric!r}")
        if self.distance_dtype not in DISTANCE_DTYPES:
            allowed = " or ".join(map(repr, DISTANCE_DTYPES))
            raise ValueError(f"distance_dtype must be {allowed}, got {self.distance_dtype!r}")
        others = {"metric": self.metric != "cosine", "refine": self.refine, "min_distance": self.min_distance > 0}
        if self._is_as_published and any(others.values()):
            seen = ", ".join(f"{name}={getattr(self, name)!r}" for name, differs in others.items() if differs)
            raise ValueError(
                f"distance_dtype must be 'full' beside {seen}, got 'as-published': the published procedure knows the "
                "cosine distance alone, and neither swaps tokens nor stops early"
            )
        checked_layer(self.layer, 0)

    @property
    def _is_as_published(self) -> bool:
        return self.distance_dtype == "as-published"

    @property
    def layers(self) -> tuple[int, ...]:
        return (self.layer,) if self.layer else ()

    @property
    def is_nested(self) -> bool:
        return not self.refine and not self._is_as_published

    @property
    def finds_count(self) -> bool:
        return self.min_distance > 0

    @property
    def may_keep_fewer(self) -> bool:
        return self.min_distance > 0 or self._is_as_published

    def adaptive_count(self, visual_tokens: Tensor, context: ItemContext) -> int:
        """Return M: `min_distance` is where the picks end."""
        return len(visual_tokens)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep` unless they are refined."""
        if self._is_as_published:
            return as_published_picks(visual_tokens, num_keep)
        picks = select(visual_tokens, num_keep=num_keep, metric=self.metric, min_distance=self.min_distance or None)
        if self.refine:
            picks = refine(picks, visual_tokens, self.metric)
        return picks.selection_order
