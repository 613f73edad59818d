"""How many visual tokens each decoder layer sees: what all pruning methods have in common.

Before the language model, inside it once, withdrawn altogether, or in steps: FLOPs and key-value caches only depend on
these counts.
"""

from dataclasses import dataclass
from itertools import pairwise

from divprune.budget import Budget
from divprune.methods import Method


@dataclass(frozen=True, slots=True)
class DropSchedule:
    """Visual tokens by decoder layer.

    Attributes:
        num_visual_tokens: M, before any are dropped.
        drops: (layer, count) pairs in ascending order of layers: from this layer on so many are left. Layer 0 is before
            the language model. `((0, 56),)` is DivPrune at 56 tokens, `((15, 0),)` VTW, `((8, 288), (16, 144))` a
            pyramid; empty for the unpruned model.

    Raises:
        ValueError: layers do not ascend from 0 on, or a count is negative or larger than the one before.
    """

    num_visual_tokens: int
    drops: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        """Check that layers ascend and counts do not."""
        layers = [-1, *(layer for layer, _ in self.drops)]
        if any(later <= earlier for earlier, later in pairwise(layers)):
            raise ValueError(f"drops must name layers in ascending order, from 0 on, got {self.drops}")
        counts = [self.num_visual_tokens, *(count for _, count in self.drops), 0]
        if any(later > earlier for earlier, later in pairwise(counts)):
            total = self.num_visual_tokens
            raise ValueError(f"drops must leave ever fewer of {total} visual tokens and at least 0, got {self.drops}")

    def counts(self, num_layers: int) -> list[int]:
        """Return the visual tokens that each of `num_layers` decoder layers sees.

        Raises:
            ValueError: the schedule names a layer that the model does not have.
        """
        if self.drops and self.drops[-1][0] >= num_layers:
            raise ValueError(f"layer must be below the model's {num_layers} decoder layers, got {self.drops[-1][0]}")
        left, counts = dict(self.drops), []
        current = self.num_visual_tokens
        for layer in range(num_layers):
            current = left.get(layer, current)
            counts.append(current)
        return counts


def schedule_of(method: Method, budget: Budget | None, num_visual_tokens: int) -> DropSchedule:
    """Return the schedule of a method on an item of M visual tokens.

    Args:
        method: any method, before or inside the LLM.
        budget: how many it keeps; None for a method that says so itself.
        num_visual_tokens: M, at least 1.

    Raises:
        ValueError: the method needs a budget and there is none, or has its own and is given another.
    """
    if method.takes_budget == (budget is None):
        expected = "given" if method.takes_budget else "left out: the method says itself how many tokens stay"
        raise ValueError(f"budget must be {expected}, got {budget} for {method.name!r}")
    if budget is None:
        return DropSchedule(num_visual_tokens, method.schedule(num_visual_tokens))
    return DropSchedule(num_visual_tokens, method.stages(budget.count(num_visual_tokens), num_visual_tokens))
