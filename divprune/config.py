"""How to prune, as one checked value: which method, how many tokens, what shares a budget, in which order, and where.

image -> visual tokens -> selection -> prompt -> LLM: every integration turns its own arguments into a `PruningConfig`,
once, and asks it instead of the method how many tokens stay.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from divprune.budget import Budget
from divprune.methods.base import Method
from divprune.methods.registry import get_method

Scope = Literal["item", "frame", "sample"]
Order = Literal["sorted", "selection"]
Positions = Literal["compact", "original"]

_CHOICES = {"scope": get_args(Scope), "order": get_args(Order), "positions": (*get_args(Positions), None)}


@dataclass(frozen=True)
class PruningConfig:
    """How a model is pruned; `PruningConfig.parse` also takes a method by name.

    Attributes:
        method: Which tokens.
        keep_ratio: Fraction of the visual tokens kept, in (0, 1]; k = max(1, round(keep_ratio * M)).
        num_keep: Number of visual tokens kept, at least 1; items with fewer tokens keep all. Exactly one of the two is
            given, or none to a method that decides its own count.
        scope: What shares one budget: each "item" (one image with all its tiles, one video), each "frame" of a video,
            or the whole "sample" (all items of a row).
        order: "sorted" feeds the kept tokens in their original order, "selection" in the order they were picked.
        positions: "compact" numbers the pruned prompt 0..n'-1 as the paper's code does, "original" keeps each token's
            own position; None is the family's default, or "original" for a method inside the LLM.

    Raises:
        ValueError: A value is out of range, or the method decides its own count and was given another.
        TypeError: `keep_ratio` or `num_keep` has the wrong type.
    """

    method: Method
    keep_ratio: float | None = None
    num_keep: int | None = None
    scope: Scope = "item"
    order: Order = "sorted"
    positions: Positions | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                choices = ", ".join(repr(each) for each in allowed if each is not None)
                raise ValueError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        is_counted = self.keep_ratio is not None or self.num_keep is not None
        if is_counted and self.method.count == "schedule":
            raise ValueError(
                f"keep_ratio and num_keep must be left out with {self.method.name!r}, which says itself how many "
                f"tokens stay; got keep_ratio={self.keep_ratio}, num_keep={self.num_keep}"
            )
        _ = self.budget

    @classmethod
    def parse(cls, method: Method | str, **values: Any) -> "PruningConfig":
        """Make a config of a method or its name, such as "random:seed=3", and the other fields.

        Raises:
            UnknownMethodError: No method has this name.
        """
        return cls(get_method(method) if isinstance(method, str) else method, **values)

    @cached_property
    def budget(self) -> Budget | None:
        """How many tokens stay; None if the method decides."""
        is_counted = self.keep_ratio is not None or self.num_keep is not None
        if not is_counted and self.method.count in ("adaptive", "schedule"):
            return None
        return Budget(self.keep_ratio, self.num_keep)
