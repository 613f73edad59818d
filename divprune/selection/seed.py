"""The first pick of Algorithm 1, the token whose nearest neighbour is farthest, without the whole distance matrix.

A token's distance to any other token is an upper bound of the distance to its nearest neighbour. The best distance
that is known exactly so far is a lower bound of the winner's. So a token leaves the race as soon as it has met another
one that is nearer than that. On pictures a sample of a few per cent of the distances decides the race; on Gaussian
noise, where no token has near neighbours, about a fifth.
"""

from math import inf

import torch
from torch import Tensor

from divprune.selection.distances import ALL, Distances

BLOCK_ROWS = 512
FEW = 64


def find_seed(distances: Distances) -> int:
    """Return the token whose nearest other token is farthest, the lowest index among equals."""
    race = SeedRace(distances)
    everyone = torch.arange(len(distances), device=distances.tokens.device)
    race.measure(_spread(everyone, len(everyone) // 24))
    race.measure(race.most_promising(FEW // 2))
    race.narrow(len(everyone) // 16)
    while len(promising := race.most_promising(FEW)):
        race.measure(promising)
    return race.winner()


class SeedRace:
    """What is known about each token's distance to its nearest neighbour.

    Attributes:
        nearest: (M,) upper bounds of these distances.
        exact: (M,) bool, where `nearest` is the distance itself.
    """

    def __init__(self, distances: Distances) -> None:
        """Know nothing yet."""
        self.distances = distances
        self.nearest = torch.full_like(distances.tokens[:, 0], inf)
        self.exact = torch.zeros_like(self.nearest, dtype=torch.bool)

    def measure(self, tokens: Tensor) -> None:
        """Find the distance of each of `tokens` (n,) to its nearest neighbour; every other token learns from it too."""
        if not len(tokens):
            return
        block = self.distances.block(tokens, ALL)
        block[torch.arange(len(tokens), device=tokens.device), tokens] = inf
        torch.minimum(self.nearest, block.amin(dim=0), out=self.nearest)
        self.nearest[tokens] = block.amin(dim=1)
        self.exact[tokens] = True

    def narrow(self, block_size: int) -> None:
        """Let the tokens in the race meet each other, `block_size` at a time, until few are left or all have met."""
        met = self.exact.clone()
        while len(fresh := (self.in_race() & ~met).nonzero().squeeze(1)) > FEW:
            columns = _spread(fresh, block_size)
            for rows in fresh.split(BLOCK_ROWS):
                block = self.distances.block(rows, columns)
                block.masked_fill_(rows.unsqueeze(1) == columns, inf)
                self.nearest[rows] = torch.minimum(self.nearest[rows], block.amin(dim=1))
                self.nearest[columns] = torch.minimum(self.nearest[columns], block.amin(dim=0))
            met[columns] = True

    def in_race(self) -> Tensor:
        """Return (M,) bool: the tokens that may win and are not measured yet."""
        # Nothing is nearer than zero.
        self.exact |= self.nearest == 0
        return (self.nearest >= self.nearest[self.exact].max()) & ~self.exact

    def most_promising(self, most: int) -> Tensor:
        """Return the at most `most` tokens in the race with the largest bounds."""
        tokens = self.in_race().nonzero().squeeze(1)
        return tokens[self.nearest[tokens].topk(min(most, len(tokens))).indices]

    def winner(self) -> int:
        """Return the token that won, the first of equals."""
        return int(torch.where(self.exact, self.nearest, -inf).argmax())


def _spread(tokens: Tensor, most: int) -> Tensor:
    """Return at least one and at most about `most` of `tokens`, evenly spread."""
    return tokens[:: -(-len(tokens) // max(1, most))]
