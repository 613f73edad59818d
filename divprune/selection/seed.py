"""The first pick of Algorithm 1, the token whose nearest neighbour is farthest, without the whole distance matrix.

A token's distance to any other token is an upper bound of the distance to its nearest neighbour. The best such distance
known exactly so far is a lower bound of the winner's. So a token leaves the race as soon as it meets one that is nearer
than that. On pictures a few per cent of the distances decide the race; on Gaussian noise, where nothing has a near
neighbour, about a fifth.
"""

from math import inf

import torch
from torch import Tensor

from divprune.selection.distances import ALL, Distances

BLOCK_ROWS = 1024
FEW = 64


def find_seed(distances: Distances) -> int:
    """Return the token whose nearest other token is farthest, the lowest index among equals."""
    race = _Race(distances)
    everyone = torch.arange(len(distances), device=distances.tokens.device)
    race.measure(_spread(everyone, len(everyone) // 24))
    # On pictures the race is mostly decided by now, and these few settle it.
    race.measure(race.most_promising(FEW // 2))
    race.narrow(len(everyone) // 16)
    while len(promising := race.most_promising(FEW)):
        race.measure(promising)
    return race.winner()


class _Race:
    """What is known about each token's distance to its nearest neighbour.

    Attributes:
        nearest: (M,) upper bounds of these distances.
        exact: (M,) bool, where `nearest` is the distance itself.
    """

    def __init__(self, distances: Distances) -> None:
        self.distances = distances
        self.nearest = torch.full_like(distances.tokens[:, 0], inf)
        self.exact = torch.zeros_like(self.nearest, dtype=torch.bool)

    def measure(self, tokens: Tensor) -> None:
        """Let `tokens` (n,) meet everyone: their distances become exact, and every other token has met n."""
        block = self.distances.block(tokens, ALL)
        block.scatter_(1, tokens.unsqueeze(1), inf)
        if len(tokens):
            torch.minimum(self.nearest, block.amin(dim=0), out=self.nearest)
        # Together with earlier bounds: tokens that are each other's nearest then tie to the last bit.
        self.nearest[tokens] = torch.minimum(self.nearest[tokens], block.amin(dim=1))
        self.exact[tokens] = True

    def narrow(self, block_size: int) -> None:
        """Let the tokens in the race meet each other, `block_size` at a time, until few are left or all have met."""
        has_met = self.exact.clone()
        while len(fresh := (self.in_race() & ~has_met).nonzero().squeeze(1)) > FEW:
            columns = _spread(fresh, block_size)
            for rows in fresh.split(BLOCK_ROWS):
                block = self.distances.block(rows, columns)
                block.masked_fill_(rows.unsqueeze(1) == columns, inf)
                self.nearest[rows] = torch.minimum(self.nearest[rows], block.amin(dim=1))
                self.nearest[columns] = torch.minimum(self.nearest[columns], block.amin(dim=0))
            # Where nobody has left yet, these have met everyone.
            self.exact[columns] |= len(fresh) + int(has_met.sum()) == len(has_met)
            has_met[columns] = True

    def in_race(self) -> Tensor:
        """Return (M,) bool: the tokens that are not measured and may still win or tie."""
        # Nothing is nearer than zero.
        self.exact |= self.nearest == 0
        return (self.nearest >= self.nearest[self.exact].max()) & ~self.exact

    def most_promising(self, most: int) -> Tensor:
        """Return the tokens in the race with the largest bounds, at most `most`."""
        tokens = self.in_race().nonzero().squeeze(1)
        return tokens[self.nearest[tokens].topk(min(most, len(tokens))).indices]

    def winner(self) -> int:
        """Return the token that won, the first of equals."""
        return int(torch.where(self.exact, self.nearest, -inf).argmax())


def _spread(tokens: Tensor, most: int) -> Tensor:
    """Return about `most` of `tokens`, at least one, evenly spread."""
    return tokens[:: -(-len(tokens) // max(1, most))]
