"""Methods that merge before the LLM and drop more inside it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, ClassVar

from divprune.lazy_torch import torch
from divprune.methods.base import Stage, checked_layer
from divprune.methods.item_context import ItemContext, Need, given
from divprune.methods.merging import Merged, MergingMethod, merged
from divprune.methods.scores import ranked

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TwoStages(MergingMethod):
    """A method that merges before the LLM and, at `layer`, keeps the tokens of the highest attention.

    What the caller asks for is `budget_ratio` times fewer than are left before the LLM, of which `kept_inside` stay
    from `layer` on. A budget of all tokens leaves all.

    Attributes:
        budget_ratio: Tokens before the LLM for each that the caller asks for; papers count a mean over the layers.
        kept_inside: Fraction of these that stays from `layer` on, rounded down, at least one token.
        layer: decoder layer of the second stage; 0 for none, so that exactly as many tokens stay as are asked for.
    """

    acts: ClassVar[str] = "before the LLM, and inside it"
    layer_needs: ClassVar[frozenset[Need]] = frozenset({"attention"})
    budget_ratio: ClassVar[float] = 1.0
    kept_inside: ClassVar[float]
    layer: int = 0

    def __post_init__(self) -> None:
        """Check the layer."""
        checked_layer(self.layer, 0)

    @property
    def layers(self) -> tuple[int, ...]:
        return (0, self.layer) if self.layer else ()

    def stages(self, num_keep: int, num_visual_tokens: int) -> tuple[Stage, ...]:
        """Return both stages, or the one before the LLM."""
        if not self.layer or num_keep >= num_visual_tokens:
            return super().stages(num_keep, num_visual_tokens)
        # Rounded, so that 1.1 times ten is eleven on every machine.
        before = min(num_visual_tokens, ceil(round(self.budget_ratio * num_keep, 9)))
        return Stage(0, before), Stage(self.layer, max(1, int(round(self.kept_inside * before, 9))))

    def merge(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Merged:
        """Merge before the LLM; inside it, keep the tokens of the highest attention as they are."""
        if not context.layer:
            return self.merge_before(visual_tokens, num_keep, context)
        return self.merge_inside(visual_tokens, ranked(self.attention_inside(context))[:num_keep])

    @abstractmethod
    def merge_before(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Merged:
        """Merge the tokens of one item before the LLM; arguments and result as for `merge`."""

    def attention_inside(self, context: ItemContext) -> Tensor:
        """Return (M,) scores inside the LLM: the attention of the prompt's last token, averaged over the heads."""
        return given(context, "attention", self.name).mean(dim=0)

    def merge_inside(self, visual_tokens: Tensor, kept: Tensor) -> Merged:
        """Return what becomes of the tokens `kept` (k,) inside the LLM: they stay as they are."""
        weights = torch.zeros(len(kept), len(visual_tokens), device=kept.device)
        return merged(weights.scatter(1, kept.unsqueeze(1), 1.0), kept)
