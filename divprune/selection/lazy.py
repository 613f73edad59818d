"""Greedy max-min selection for a fraction of the price of the distance matrix, with the same picks.

For sets of about a thousand tokens and more. A token's distance to its nearest kept token only ever shrinks. That saves
most of the distances twice over:

- Among the candidates that are farthest now, picks are final as long as they beat the best token outside. One small
  block of distances between the candidates gives many picks.
- A distance that leaves out the latest picks is an upper bound. A token near some pick keeps such a bound and never
  meets the later picks, unless everything else comes as near and the bound is among the largest again.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING

from divprune.lazy_torch import torch
from divprune.selection.approximate_distances import RoughDistances
from divprune.selection.distances import Distances
from divprune.selection.first_pick import find_seed

if TYPE_CHECKING:
    from torch import Tensor

FEWEST_CANDIDATES, USUAL_CANDIDATES, MOST_CANDIDATES = 32, 128, 2048
POOL_PER_CANDIDATE = 8
BLOCK_ROWS = 512
ROUNDS_BEFORE_GROWTH = 32


def lazy_picks(distances: Distances, num_keep: int, min_distance: float = -inf) -> tuple[list[int], list[float]]:
    """Return the picks from one set (M, d) and the distance of each to its nearest earlier pick; inf for the first.

    Args:
        distances: Of one set of M tokens.
        num_keep: Number of picks, between 1 and M.
        min_distance: Stop before the first pick that is nearer than this to an earlier one.
    """
    greedy = LazyGreedy(distances)
    greedy.run(num_keep, min_distance)
    return greedy.picks, greedy.when_chosen


class LazyGreedy:
    """Algorithm 1 on one set of tokens.

    Attributes:
        picks: The tokens picked so far.
        when_chosen: The distance of each to its nearest earlier pick; inf for the first.
    """

    def __init__(self, distances: Distances) -> None:
        """Pick the first token of a set (M, d)."""
        self.distances = distances
        self.rough = RoughDistances(distances)
        # Upper bounds of the distances to the nearest pick, and how many of the picks each takes into account.
        seed, self._bound = find_seed(distances, self.rough)
        self.picks = [seed]
        self.when_chosen = [inf]
        self._num_met = torch.ones_like(self._bound, dtype=torch.int64)
        # The same with the picks included that seemed too far to matter.
        self._num_asked = self._num_met.clone()
        self._bound[seed] = -inf

    def run(self, num_keep: int, min_distance: float = -inf, num_candidates: int | None = None) -> None:
        """Pick until there are `num_keep` picks or nothing is at least `min_distance` away from all of them."""
        rounds = 0
        num_candidates = num_candidates or min(USUAL_CANDIDATES, max(FEWEST_CANDIDATES, len(self.distances) // 24))
        while len(self.picks) < num_keep and float(self._bound.max()) >= min_distance:
            # Updating a larger pool than the candidates keeps the products large.
            pool_size = min(len(self._bound), POOL_PER_CANDIDATE * num_candidates)
            self._lower(self._bound.topk(pool_size, sorted=False).indices)
            candidates, rival = self._farthest(num_candidates)
            self._catch_up(candidates)
            self._race(candidates, rival, num_keep - len(self.picks), min_distance)
            rounds += 1
            # Tight clusters give one pick a round.
            if rounds % ROUNDS_BEFORE_GROWTH == 0:
                num_candidates = min(2 * num_candidates, MOST_CANDIDATES)

    def _farthest(self, count: int) -> tuple[Tensor, tuple[float, int]]:
        """Return the `count` tokens with the largest bounds, ascending, and the bound and index of the next one."""
        # A stable order puts the first of equals first, inside and outside.
        ranked = self._bound.sort(descending=True, stable=True)
        if count >= len(self._bound):
            return ranked.indices.sort().values, (-inf, 0)
        rival = float(ranked.values[count]), int(ranked.indices[count])
        return ranked.indices[:count].sort().values, rival

    def _lower(self, tokens: Tensor) -> None:
        """Lower the bounds of `tokens`, to about the exact ones: let them meet new picks that seem to be nearer."""
        for rows, missed in self._behind(tokens, self._num_asked):
            likely = self.rough.nearness(rows, missed).max(dim=1)
            nearer = (likely.values > self.rough.origin - self._bound[rows]).nonzero().squeeze(1)
            meeting, nearest = rows[nearer], missed[likely.indices[nearer]]
            self._bound[meeting] = torch.minimum(self._bound[meeting], self.distances.pairs(meeting, nearest))
            self._num_asked[rows] = len(self.picks)

    def _catch_up(self, tokens: Tensor) -> None:
        """Make the bounds of `tokens` exact: let them meet the picks that they have not met."""
        for rows, missed in self._behind(tokens, self._num_met):
            self._bound[rows] = torch.minimum(self._bound[rows], self.distances.block(rows, missed).amin(dim=1))
            self._num_met[rows] = self._num_asked[rows] = len(self.picks)

    def _behind(self, tokens: Tensor, num_met: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield those of `tokens` that have not met all picks, in groups, with the picks that a group has not met."""
        stale = tokens[(num_met[tokens] < len(self.picks)) & (self._bound[tokens] > -inf)]
        for rows in stale[num_met[stale].argsort()].split(BLOCK_ROWS):
            if len(rows):
                yield rows, torch.tensor(self.picks[int(num_met[rows[0]]) :], device=rows.device)

    def _race(self, candidates: Tensor, rival: tuple[float, int], most: int, min_distance: float) -> None:
        """Pick among `candidates`, whose bounds are exact, while they beat the `rival` outside."""
        # On the CPU, so that a GPU need not answer pick by pick.
        nearest = self._bound[candidates].cpu()
        block = self.distances.block(candidates, candidates).cpu()
        block.fill_diagonal_(-inf)
        tokens = candidates.tolist()
        # NumPy's view of the same memory: its calls cost less than torch's.
        view = nearest.numpy()
        for _ in range(most):
            slot = int(view.argmax())
            distance = float(view[slot])
            if distance < min_distance or (distance, -tokens[slot]) < (rival[0], -rival[1]):
                break
            self.picks.append(tokens[slot])
            self.when_chosen.append(distance)
            torch.minimum(nearest, block[slot], out=nearest)
        self._bound[candidates] = nearest.to(self._bound.device)
        self._num_met[candidates] = self._num_asked[candidates] = len(self.picks)
