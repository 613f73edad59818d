"""The first pick of Algorithm 1, the token whose nearest neighbour is farthest, without the whole distance matrix.

A token's distance to any other token is an upper bound of the distance to its nearest neighbour. The best such distance
known exactly so far is a lower bound of the winner's. So a token leaves the race as soon as it meets one that is nearer
than that. Whom to meet is guessed from rough products; only exact distances send a token away.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from divprune.lazy_torch import torch
from divprune.selection.approximate_distances import RoughDistances
from divprune.selection.distances import ALL, Distances

if TYPE_CHECKING:
    from torch import Tensor

FEW = 32
SHARE_ASKED_FIRST = 24
MOST_ROWS = 1024
BLOCK_NUMBERS = 2**25
"""Most numbers in a block that is as wide as the set: memory does not grow with the square of the tokens."""
COLUMNS_AT_A_TIME = 512
WORTHWHILE = 0.75


def find_seed(distances: Distances, rough: RoughDistances) -> tuple[int, Tensor]:
    """Return the token whose nearest other token is farthest, the lowest index among equals, and its distances (M,)."""
    race = _GuessedRace(distances, rough)
    race.open()
    race.narrow()
    most, limit = race.fitting(FEW), race.fitting(MOST_ROWS)
    while len(promising := race.farthest(race.in_race(), most)):
        race.measure(promising)
        most = min(2 * most, limit)
    return race.winner(), race.distances_of_winner()


class Race:
    """What is known about each token's distance to its nearest neighbour.

    Attributes:
        distances: Of one set of M tokens.
        everyone: (M,) int64, all of them.
        nearest: (M,) upper bounds of these distances.
        exact: (M,) bool, where `nearest` is the distance itself.
        leader: The token that led the race when last one was measured, and its distances (M,) to everyone.
    """

    def __init__(self, distances: Distances) -> None:
        """Know nothing yet."""
        self.distances = distances
        self.everyone = torch.arange(len(distances), device=distances.tokens.device)
        self.nearest = torch.full_like(distances.tokens[:, 0], inf)
        self.exact = torch.zeros_like(self.nearest, dtype=torch.bool)
        self.leader = -1, self.nearest

    def meet(self, tokens: Tensor | slice, others: Tensor) -> None:
        """Let each of `tokens` (n,) meet its partner among `others` (n,)."""
        distance = self.distances.pairs(tokens, others)
        self.nearest.scatter_reduce_(0, self.everyone[tokens], distance, "amin")
        self.nearest.scatter_reduce_(0, others, distance, "amin")

    def measure(self, tokens: Tensor) -> Tensor:
        """Let `tokens` (n,) meet everyone: their distances become exact, and every other token has met n.

        Returns:
            (n, M) distances, inf of each to itself.
        """
        block = self.distances.block(tokens, ALL)
        block.scatter_(1, tokens.unsqueeze(1), inf)
        torch.minimum(self.nearest, block.amin(dim=0), out=self.nearest)
        # Together with earlier bounds: tokens that are each other's nearest then tie to the last bit.
        self.nearest[tokens] = torch.minimum(self.nearest[tokens], block.amin(dim=1))
        self.exact[tokens] = True
        winner = self.winner()
        if len(slot := (tokens == winner).nonzero()):
            self.leader = winner, block[slot[0, 0]].clone()
        return block

    def in_race(self) -> Tensor:
        """Return the tokens that are not measured and may still win, as the first of equals."""
        winner = self.winner()
        may_win = self.nearest > self.nearest[winner]
        may_win[:winner] |= self.nearest[:winner] == self.nearest[winner]
        return (may_win & ~self.exact).nonzero().squeeze(1)

    def farthest(self, tokens: Tensor, most: int) -> Tensor:
        """Return those of `tokens` with the largest bounds, at most `most`."""
        return tokens[self.nearest[tokens].topk(min(most, len(tokens))).indices]

    def winner(self) -> int:
        """Return the measured token with the largest distance, the first of equals."""
        return int(torch.where(self.exact, self.nearest, -inf).argmax())

    def distances_of_winner(self) -> Tensor:
        """Return the distances (M,) of the winner to everyone."""
        token, distance = self.leader
        winner = self.winner()
        # Rounding can swap two that tie after both were measured.
        return distance if token == winner else self.distances.block(self.everyone[winner : winner + 1], ALL)[0]


class _GuessedRace(Race):
    """A race in which rough products tell whom to meet."""

    def __init__(self, distances: Distances, rough: RoughDistances) -> None:
        super().__init__(distances)
        self.rough = rough

    def open(self) -> None:
        """Measure a few tokens that are likely to be far from everyone."""
        some = _spread(self.everyone, max(FEW, len(self.everyone) // SHARE_ASKED_FIRST))
        for part in some.split(self.fitting(len(some))):
            nearness = self.rough.nearness(part, ALL).scatter_(1, part.unsqueeze(1), -inf)
            self.meet(part, nearness.argmax(dim=1))
            self.measure(self.farthest(part, FEW // 2))
            self._dismiss(self.everyone, part, nearness.T)

    def fitting(self, most: int) -> int:
        """Return how many tokens meet everyone in one block: at most `most`, at least one."""
        return max(1, min(most, BLOCK_NUMBERS // len(self.everyone)))

    def narrow(self) -> None:
        """Let the tokens in the race meet each other, then the few that are left everyone."""
        before, rest = inf, self.in_race()
        # Both partners may leave, so this costs half. The fewer are left, the more of them have met before.
        while MOST_ROWS < len(rest) < WORTHWHILE * before:
            for tokens, others in zip(rest[0:-1:2].split(MOST_ROWS), rest[1::2].split(MOST_ROWS), strict=True):
                nearness = self.rough.nearness(tokens, others)
                self._dismiss(tokens, others, nearness)
                self._dismiss(others, tokens, nearness.T)
            before, rest = len(rest), self.in_race()
        for others in self.everyone.split(self.fitting(COLUMNS_AT_A_TIME)):
            if len(rest := self.in_race()) <= FEW:
                break
            nearness = self.rough.nearness(rest, others).masked_fill_(rest.unsqueeze(1) == others, -inf)
            self._dismiss(rest, others, nearness)

    def _dismiss(self, tokens: Tensor, others: Tensor, nearness: Tensor) -> None:
        """Let those of `tokens` (n,) that seem near enough to one of `others` (m,) to leave the race meet it.

        Args:
            tokens: Who may leave.
            others: Whom they may meet.
            nearness: (n, m) between them.
        """
        limit = self.rough.origin - self.nearest[self.winner()]
        leaving = (nearness.amax(dim=1) > limit).nonzero().squeeze(1)
        self.meet(tokens[leaving], others[nearness[leaving].argmax(dim=1)])


def _spread(tokens: Tensor, most: int) -> Tensor:
    """Return about `most` of `tokens`, at least one, evenly spread."""
    return tokens[:: -(-len(tokens) // max(1, most))]
