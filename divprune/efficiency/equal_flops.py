"""The keep count at which a method costs what another one does, so that they can be compared at equal FLOPs."""

from collections.abc import Callable

from divprune.budget import Budget
from divprune.efficiency.flops import Accounting, compare, encoded_workloads
from divprune.efficiency.shapes import ModelShape
from divprune.efficiency.workloads import Workload
from divprune.encoder_options import TomeEncoder
from divprune.methods import Method


def num_keep_for_ratio(
    target_ratio: float,
    shape: ModelShape,
    workloads: list[Workload],
    method: Method,
    accounting: Accounting,
    encoder: TomeEncoder | None = None,
) -> int:
    """Return how many visual tokens a method may keep to cost a fraction of the unpruned prefill.

    Args:
        target_ratio: cost pruned / unpruned, in (0, 1], a mean over `workloads`.
        shape: of the model.
        workloads: the prompts, at least one.
        method: a method that is told how many tokens to keep.
        accounting: "paper" or "exact".
        encoder: an option of the vision encoder, beside the method; the unpruned prefill is without it.

    Returns:
        The count whose cost is nearest.

    Raises:
        ValueError: the target is out of range or cannot be reached, or the method decides the count itself.
    """
    if not 0 < target_ratio <= 1:
        raise ValueError(f"target_ratio must be in (0, 1], got {target_ratio}")
    if not method.takes_budget:
        raise ValueError(f"method {method.name!r} decides itself how many tokens stay; set its parameters instead")
    most = max(workload.num_visual_tokens for workload in encoded_workloads(shape, workloads, encoder))

    def cost(num_keep: int) -> float:
        return compare(shape, workloads, method, Budget(num_keep=num_keep), accounting, encoder=encoder).ratio

    return nearest_count(target_ratio, cost, most)


def nearest_count(target: float, cost: Callable[[int], float], most: int) -> int:
    """Return the count in 1..`most` whose cost is nearest to a target.

    Args:
        target: a cost.
        cost: the cost of a count, growing with it.
        most: the largest count, at least 1.

    Raises:
        ValueError: the target lies farther below the cost of one token, or above that of all, than half a token costs.
    """
    lowest, highest = 1, most
    while highest - lowest > 1:
        middle = (lowest + highest) // 2
        lowest, highest = (middle, highest) if cost(middle) <= target else (lowest, middle)
    nearest = min((lowest, highest), key=lambda count: abs(cost(count) - target))
    half_step = abs(cost(highest) - cost(lowest)) / 2
    if abs(cost(nearest) - target) > half_step + 1e-9:
        raise ValueError(
            f"the FLOP target must lie between {cost(1):.2%} (1 token kept) and {cost(most):.2%} (all {most}) of the "
            f"unpruned cost for this method and layer, got {target:.2%}"
        )
    return nearest
