"""Plan a comparison: each method at each keep ratio, at equal tokens or at equal FLOPs."""

from collections.abc import Iterator, Sequence
from typing import Literal

from divprune.budget import Budget
from divprune.efficiency.equal_flops import num_keep_for_ratio
from divprune.efficiency.flops import compare
from divprune.efficiency.shapes import ModelShape
from divprune.efficiency.workloads import Workload
from divprune.methods import Method, RandomTokens

Matching = Literal["tokens", "flops"]
MATCHINGS: tuple[Matching, ...] = ("tokens", "flops")


def settings_of(
    method: Method, keep_ratios: Sequence[float], matchings: Sequence[Matching]
) -> Iterator[tuple[Matching, float] | None]:
    """Yield what a method is compared at; None where it is left to decide its own count.

    Args:
        method: the method.
        keep_ratios: fractions of the visual tokens kept, in (0, 1].
        matchings: what is made equal between methods.
    """
    if method.finds_count:
        yield None
    if method.takes_budget:
        yield from ((matching, keep_ratio) for matching in matchings for keep_ratio in keep_ratios)


def num_keep_at_equal_flops(keep_ratio: float, shape: ModelShape, workloads: list[Workload], method: Method) -> int:
    """Return how many tokens a method may keep to cost what a keep ratio costs before the LLM (Eq. 5).

    Raises:
        ValueError: the cost cannot be reached, or the method has no such layer in this model.
    """
    target = compare(shape, workloads, RandomTokens(), Budget(keep_ratio), "paper").ratio
    return num_keep_for_ratio(target, shape, workloads, method, "paper")
