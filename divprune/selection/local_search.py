"""Swaps that raise the max-min distance of a choice: a local search behind the greedy picks."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from divprune.lazy_torch import torch, without_gradients
from divprune.selection.distances import ALL, Distances, full_precision
from divprune.selection.max_min import check_tokens, select
from divprune.selection.result import Selection

if TYPE_CHECKING:
    from torch import Tensor

LONGEST_CHAIN = 32


@without_gradients
def refine(selection: Selection, visual_tokens: Tensor, metric: str = "cosine") -> Selection:
    """Swap tokens as long as the smallest distances grow.

    Of the nearest two kept tokens, at distance m, one is given up for a token that is farther than m from all the
    others. If there is none, one that is too near to a single kept token takes the place of both, and the search goes
    on for the place that this left: a chain of at most 32 swaps, undone if it ends without a full choice. A whole chain
    removes a distance m and adds none, so the max-min distance never falls. It ends when neither of the nearest two can
    be replaced: a local optimum, not the global one.

    A swap costs O(M (d + k)) and memory O(M k) is needed; on a CPU it takes 3 to 20 times as long as the greedy picks.
    The result is deterministic, and in contrast to greedy picks not nested in the number kept.

    Args:
        selection: The choice, of one set.
        visual_tokens: (M, d) floating point, the set it was made from.
        metric: "cosine", "l1" or "l2".

    Returns:
        A choice of as many tokens, in greedy order among themselves. The very `selection` if no swap helps.

    Raises:
        ValueError: The tokens are a batch, or hold NaN or infinity.
        TypeError: `visual_tokens` is not a floating-point tensor.
    """
    check_tokens(visual_tokens)
    if visual_tokens.ndim != 2 or not isinstance(selection.num_kept, int):
        raise ValueError(
            f"visual_tokens must have shape (M, d), got {tuple(visual_tokens.shape)}; of a batch, refine each "
            "selection.row(index)"
        )
    if not 1 < selection.num_kept < len(visual_tokens):
        return selection
    with full_precision(visual_tokens.device):
        kept = _Swaps(Distances(visual_tokens, metric), selection.selection_order).run()
    # Greedy among themselves, so that the distances when chosen mean what they always do.
    again = select(visual_tokens[kept], num_keep=len(kept), metric=metric)
    order = kept[again.selection_order]
    better = float(again.distance_when_chosen[-1]) > float(selection.distance_when_chosen[-1])
    return Selection(order.sort().values, order, again.distance_when_chosen, len(order)) if better else selection


class _Swaps:
    """A choice under change.

    Attributes:
        kept: (k,) the kept tokens.
        to_kept: (M, k) distances of all tokens to them; inf from a kept token to itself.
    """

    def __init__(self, distances: Distances, kept: Tensor) -> None:
        self.distances = distances
        self.kept = kept.clone()
        self.to_kept = distances.block(ALL, self.kept)
        among = self.to_kept[self.kept].fill_diagonal_(inf)
        # A pair is as far apart either way, to the last bit: else swaps could go round in circles.
        self.to_kept[self.kept] = torch.minimum(among, among.T)

    def run(self) -> Tensor:
        """Swap until nothing helps, and return the kept tokens (k,)."""
        improved = True
        while improved:
            among = self.to_kept[self.kept]
            first, second = divmod(int(among.argmin()), len(self.kept))
            nearest = float(among[first, second])
            improved = self._replace(first, nearest) or self._replace(second, nearest)
        return self.kept

    def _replace(self, place: int, nearest: float) -> bool:
        """Replace the token at `place`, so that all distances that change become larger than `nearest`, or do nothing.

        A token that was given up does not come back within the chain.
        """
        kept, columns = self.kept.clone(), dict[int, torch.Tensor]()
        given_up = kept[place : place + 1]
        for _ in range(LONGEST_CHAIN):
            columns.setdefault(place, self.to_kept[:, place].clone())
            token, in_the_way = self._candidate(place, nearest, given_up)
            if token is None:
                break
            self._put(token, place)
            if in_the_way is None:
                return True
            place = in_the_way
            given_up = torch.cat([given_up, self.kept[place : place + 1]])
        self.kept = kept
        for changed, column in columns.items():
            self.to_kept[:, changed] = column
        return False

    def _candidate(self, place: int, nearest: float, given_up: Tensor) -> tuple[int | None, int | None]:
        """Return a token for `place` and the one other place that is in its way; None: no token, nothing in its way."""
        self.to_kept[:, place] = inf
        two = self.to_kept.topk(2, dim=1, largest=False)
        taken = torch.cat([self.kept[:place], self.kept[place + 1 :], given_up])
        distance = two.values[:, 0].index_fill(0, taken, -inf)
        token = int(distance.argmax())
        if float(distance[token]) > nearest:
            return token, None
        # Of those that one kept token stands in the way of, the farthest from it.
        distance = distance.masked_fill(two.values[:, 1] <= nearest, -inf)
        token = int(distance.argmax())
        return (None, None) if float(distance[token]) == -inf else (token, int(two.indices[token, 0]))

    def _put(self, token: int, place: int) -> None:
        self.kept[place] = token
        column = self.distances.block(ALL, self.kept[place : place + 1]).squeeze(1)
        column[self.kept] = self.to_kept[token]
        self.to_kept[:, place] = column
