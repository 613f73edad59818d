"""What the greedy rules make large; each keeps a running state that a pick updates.

Shapes: B sets of M tokens; a *row* is something that wants to be covered, often the tokens themselves.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from divprune.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor

from divprune.selection.fused_rules import RowRule


class Relevance:
    """Importance against redundancy (maximal marginal relevance).

    Gain: weight * importance_i - (1 - weight) * max over chosen s of similarity_is; the second term is zero for the
    first pick.
    """

    def __init__(self, importance: Tensor, similarity: Tensor, weight: float) -> None:
        """Take (B, M) importance, (B, M, M) similarity and the weight of the importance in [0, 1]."""
        self._worth = weight * importance
        self._similarity = similarity
        self._weight = weight
        self._redundancy = torch.zeros_like(importance)
        self._is_first = True

    def gains(self) -> Tensor:
        return self._worth - (1 - self._weight) * self._redundancy

    def row_rule(self) -> RowRule:
        return RowRule("largest", self._similarity, self._redundancy, self._worth, 1 - self._weight)

    def add(self, picks: Tensor) -> None:
        row = batch_rows(self._similarity, picks)
        self._redundancy = row if self._is_first else torch.maximum(self._redundancy, row)
        self._is_first = False


class Coverage:
    """Facility location: how much better the rows are covered by their best chosen token.

    Gain: scale_u * sum over rows r of max(0, cover_ru - best_r), where best_r is the largest cover_rs of the chosen s,
    and 0 at first. Weights of rows are multiplied into `cover`. A pick covers few rows better than all before it, and
    only what these rows add to the gains is counted anew.
    """

    def __init__(self, cover: Tensor, scale: Tensor | None = None) -> None:
        """Take (B, R, M) how well each token covers each row, and (B, M) scales; None for 1."""
        self._cover = cover
        self._scale = scale
        self._best = cover.new_zeros(cover.shape[:2])
        # In float64, so that what is taken away later is what was added before.
        self._added = torch.stack([_improvement(rows, best) for rows, best in zip(cover, self._best, strict=True)])

    def gains(self) -> Tensor:
        return self._added if self._scale is None else self._added * self._scale

    def add(self, picks: Tensor) -> None:
        for cover, best, added, pick in zip(self._cover, self._best, self._added, picks, strict=True):
            column = cover[:, pick]
            better = torch.nonzero(column > best).squeeze(1)
            rows = cover[better]
            added -= _improvement(rows, best[better]) - _improvement(rows, column[better])
            best[better] = column[better]


def _improvement(rows: Tensor, best: Tensor) -> Tensor:
    """Return (M,) float64 how much each token betters rows (n, M) that are covered by `best` (n,)."""
    return (rows - best.unsqueeze(1)).clamp_(min=0).sum(dim=0, dtype=torch.float64)


class Suppression:
    """A pick lowers the scores of the tokens near it, to 0 at least.

    Gain: score_j; after each pick i, score_j = max(0, score_j - nearness_ij * score_i). Tokens whose score is 0 follow
    the others by their first scores: a score below 0 would make a pick raise those near it.
    """

    def __init__(self, scores: Tensor, nearness: Tensor) -> None:
        """Take (B, M) scores of at least 0 and (B, M, M) nearness in [0, 1]."""
        self._scores = scores.clone()
        self._nearness = nearness
        # -1 for the highest first score, -2 for the next: below every score, and exact.
        order = scores.sort(dim=1, descending=True, stable=True).indices
        self._rank = -1 - order.argsort(dim=1).to(scores.dtype)

    def gains(self) -> Tensor:
        # Not `> 0`, which would hide NaN.
        return torch.where(self._scores <= 0, self._rank, self._scores)

    def row_rule(self) -> RowRule:
        return RowRule("suppress", self._nearness, self._scores, self._rank)

    def add(self, picks: Tensor) -> None:
        score = self._scores.gather(1, picks.unsqueeze(1))
        self._scores = (self._scores - batch_rows(self._nearness, picks) * score).clamp(min=0)


class Determinant:
    """The determinant of the kernel among the chosen (greedy MAP of a determinantal point process).

    Gain: the factor by which a token multiplies the determinant, kept up by one column of the incremental Cholesky
    factor a pick: e_i = (L_ji - <c_j, c_i>) / sqrt(gain_j), gain_i -= e_i^2. Where the kernel's rank is used up, gains
    are zero but for rounding.
    """

    def __init__(self, kernel: Tensor, num_keep: int) -> None:
        """Take (B, M, M) positive semi-definite kernels, and how many picks will be made; computed in float64."""
        self._kernel = kernel.double()
        self._gains = self._kernel.diagonal(dim1=1, dim2=2).clone()
        self._smallest = self._gains.amax(dim=1, keepdim=True) * torch.finfo(torch.float64).eps
        self._factor = self._kernel.new_zeros(len(kernel), num_keep, kernel.shape[2])
        self._num_picked = 0

    def gains(self) -> Tensor:
        return self._gains

    def add(self, picks: Tensor) -> None:
        index = picks.unsqueeze(1)
        columns = self._factor[:, : self._num_picked]
        own = columns.gather(2, picks.view(-1, 1, 1).expand(-1, self._num_picked, 1))  # (B, t, 1)
        column = batch_rows(self._kernel, picks) - (own.mT @ columns).squeeze(1)
        pivot = torch.maximum(self._gains.gather(1, index), self._smallest)
        # A kernel of zeros has no pivot.
        column = torch.where(pivot > 0, column / pivot.sqrt(), 0.0)
        self._factor[:, self._num_picked] = column
        self._num_picked += 1
        self._gains = (self._gains - column.square()).clamp(min=0)


class Dispersion:
    """The smallest distance to the chosen (max-min diversity), for distances that need not be symmetric.

    Gain: min over chosen s of distance_si; for the first pick, the second smallest distance_si over all s.
    """

    def __init__(self, distance: Tensor) -> None:
        """Take (B, M, M) distances, row by row from each token to the candidates."""
        self._distance = distance
        self._smallest = distance.kthvalue(min(2, distance.shape[1]), dim=1).values
        self._is_first = True

    def gains(self) -> Tensor:
        return self._smallest

    def row_rule(self) -> RowRule:
        return RowRule("smallest", self._distance, self._smallest, self._smallest)

    def add(self, picks: Tensor) -> None:
        row = batch_rows(self._distance, picks)
        self._smallest = row if self._is_first else torch.minimum(self._smallest, row)
        self._is_first = False


class Closeness:
    """The largest distance to the chosen, made small: the opposite of diversity.

    Gain: -max over chosen s of distance_is; for the first pick, -(distance to the nearest other token).
    """

    def __init__(self, distance: Tensor) -> None:
        """Take (B, M, M) distances; for one token alone the first gain is 0."""
        self._distance = distance
        others = distance.clone()
        others.diagonal(dim1=1, dim2=2).fill_(inf)
        nearest = others.amin(dim=2)
        self._largest = torch.where(torch.isinf(nearest), 0.0, nearest)
        self._is_first = True

    def gains(self) -> Tensor:
        return -self._largest

    def row_rule(self) -> RowRule:
        return RowRule("largest", self._distance, self._largest, torch.zeros_like(self._largest))

    def add(self, picks: Tensor) -> None:
        row = batch_rows(self._distance, picks)
        self._largest = row if self._is_first else torch.maximum(self._largest, row)
        self._is_first = False


class Balanced:
    """Several objectives at once: the weighted sum of their gains, each scaled to [0, 1] over the tokens left."""

    def __init__(self, *terms: tuple[float, Coverage | Relevance | Constant]) -> None:
        """Take pairs of weight and objective."""
        self._terms = terms
        self._taken = torch.zeros_like(terms[0][1].gains(), dtype=torch.bool)

    def gains(self) -> Tensor:
        return torch.stack([weight * self._scaled(term.gains()) for weight, term in self._terms]).sum(dim=0)

    def add(self, picks: Tensor) -> None:
        self._taken = self._taken.scatter(1, picks.unsqueeze(1), True)
        for _, term in self._terms:
            term.add(picks)

    def _scaled(self, gains: Tensor) -> Tensor:
        low = gains.masked_fill(self._taken, inf).amin(dim=1, keepdim=True)
        high = gains.masked_fill(self._taken, -inf).amax(dim=1, keepdim=True)
        return torch.where(high > low, (gains - low) / (high - low), 0.0)


class Constant:
    """Scores that no pick changes."""

    def __init__(self, scores: Tensor) -> None:
        """Take (B, M) scores."""
        self._scores = scores

    def gains(self) -> Tensor:
        return self._scores

    def add(self, picks: Tensor) -> None:
        """Change nothing."""


def batch_rows(matrix: Tensor, picks: Tensor) -> Tensor:
    """Return row `picks[b]` (B, M) of each matrix (B, M, M)."""
    return matrix[torch.arange(len(picks), device=matrix.device), picks]
