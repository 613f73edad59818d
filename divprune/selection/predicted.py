"""Greedy max-min selection of small sets: the picks are predicted from a part of the features, and decided exactly.

For sets of some hundred tokens on a CPU. Of 576 tokens 56 picks need 56 rows of distances, a tenth of the matrix; what
makes them wait for each other is that the next row is known only after the last one. Cosines of an eighth of the
features, in bfloat16 where the hardware multiplies it, cost a small part of the matrix and tell the next picks well
enough to compute their rows together. Every pick is then decided by exact distances; where the prediction was wrong,
the next ones are predicted anew from there.

Where a part of the features does not tell (independent noise), which a sample of the tokens says, all of them do so in
bfloat16; without instructions for it nothing is gained.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from divprune.lazy_torch import torch
from divprune.selection.approximate_distances import multiplies_bfloat16
from divprune.selection.distances import ALL, Distances, unit_rows
from divprune.selection.first_pick import Race
from divprune.selection.matrix import picks_by_rows
from divprune.selection.symmetric import mirror, upper_products

if TYPE_CHECKING:
    from torch import Tensor

    from divprune.selection.matrix import Vector

FEATURES_PER_PREDICTED = 8
"""One feature of so many predicts."""
FEWEST_FEATURES = 2048
"""Of fewer, the whole matrix costs little more than the prediction."""
SAMPLED_TOKENS = 32
TELLING_CORRELATION = 0.9
"""Between predicted and exact cosines of a sample, from which on they predict."""
PREDICTED_FIRST, PREDICTED_TOGETHER = 160, 64
"""Picks that are predicted at a time: before any is known, and from then on."""
MEASURED_FIRST = 8
NEARLY_COPIES = 0.98
"""Predicted cosine from which on two tokens may be copies: less than 1 by more than bfloat16 rounds."""


def predicted_picks(
    distances: Distances, num_keep: int, min_distance: float = -inf
) -> tuple[list[int], list[float]] | None:
    """Return the picks from one set and the distance of each to its nearest earlier pick; inf for the first.

    Args:
        distances: Cosine distances of one set (M, d) on the CPU.
        num_keep: Number of picks, between 1 and M.
        min_distance: Stop before the first pick that is nearer than this to an earlier one.

    Returns:
        None where the prediction would not help: features that do not tell about each other, or copies of tokens.
    """
    part = _telling_part(distances)
    if part is None:
        return None
    predicted = mirror(_cosines(part)).fill_diagonal_(-inf)
    largest = predicted.amax(dim=1)
    race = Race(distances)
    alike = (largest >= NEARLY_COPIES).nonzero().squeeze(1)
    race.meet(alike, predicted[alike].argmax(dim=1))
    if not bool(race.nearest.all()):
        return None
    greedy = _Greedy(distances, predicted.numpy())
    first = greedy.predict(int(largest.argmin()), greedy.unmet(), min(PREDICTED_FIRST, num_keep + num_keep // 4))
    # Those that are likely to come first in the race, and all that are likely to be picked: rows of one product.
    likely = largest.topk(min(MEASURED_FIRST, len(largest)), largest=False).indices.tolist()
    greedy.rows |= _measured(race, torch.tensor([*likely, *first]).unique())
    left = race.in_race()
    race.meet(left, predicted[left].argmax(dim=1))
    while len(promising := race.farthest(race.in_race(), MEASURED_FIRST)):
        greedy.rows |= _measured(race, promising)
    return picks_by_rows(race.winner(), num_keep, min_distance, greedy.row) if bool(race.nearest.all()) else None


def _measured(race: Race, tokens: Tensor) -> dict[int, Vector]:
    return dict(zip(tokens.tolist(), race.measure(tokens).numpy(), strict=True))


def _telling_part(distances: Distances) -> Tensor | None:
    """Return the features (M, n) that tell cheaply about how near tokens are, by a sample of them; None if none do."""
    import numpy

    tokens, some = distances.tokens, slice(None, None, -(-len(distances) // SAMPLED_TOKENS))
    exact = 1 - distances.block(some, some).numpy()
    pairs = numpy.triu_indices(len(exact), 1)
    if tokens.shape[-1] < FEWEST_FEATURES or len(pairs[0]) < 2:
        return None
    for part in (_part(tokens), tokens) if multiplies_bfloat16(tokens.device) else (_part(tokens),):
        both = numpy.stack([exact[pairs], _cosines(part[some]).numpy()[pairs]])
        # Constants correlate with nothing.
        if both.std(axis=1).all() and numpy.corrcoef(both)[0, 1] >= TELLING_CORRELATION:
            return part
    return None


def _part(tokens: Tensor) -> Tensor:
    return tokens[:, : max(1, tokens.shape[-1] // FEATURES_PER_PREDICTED)]


def _cosines(part: Tensor) -> Tensor:
    """Return about the cosines (M, M) of `part` (M, n), on the diagonal and above."""
    if multiplies_bfloat16(part.device):
        return upper_products(unit_rows(part).bfloat16()).to(part.dtype)
    lengths = torch.linalg.vector_norm(part, dim=1).clamp_min_(torch.finfo(part.dtype).tiny)
    return upper_products(part).div_(lengths.unsqueeze(1)).div_(lengths)


class _Greedy:
    """Rows of exact distances; of many at a time, those that the predicted distances ask for.

    Attributes:
        predicted: About the cosines, (M, M).
        rows: Exact distances (M,) of tokens to everyone, by token.
    """

    def __init__(self, distances: Distances, predicted: Vector) -> None:
        self._distances, self.predicted = distances, predicted
        self.rows: dict[int, Vector] = {}
        import numpy

        # NumPy's calls on small arrays cost less than torch's.
        self._minimum = numpy.minimum

    def unmet(self) -> Vector:
        """Return distances (M,) to no token."""
        return torch.full_like(self._distances.tokens[:, 0], inf).numpy()

    def row(self, pick: int, nearest: Vector, num_left: int) -> Vector:
        """Return the distances (M,) of `pick` to everyone; see `picks_by_rows`."""
        if pick not in self.rows:
            wanted = self.predict(pick, nearest, min(PREDICTED_TOGETHER, num_left + 1))
            block = self._distances.block(torch.tensor(wanted), ALL).numpy()
            self.rows |= zip(wanted, block, strict=True)
        return self.rows[pick]

    def predict(self, pick: int, nearest: Vector, number: int) -> list[int]:
        """Return `pick` and those of the next `number` - 1 picks after it whose rows are not known."""
        ahead, wanted = nearest.copy(), []
        for _ in range(number):
            if pick not in self.rows:
                wanted.append(pick)
            self._minimum(ahead, self.rows[pick] if pick in self.rows else 1 - self.predicted[pick], out=ahead)
            ahead[pick] = -inf
            pick = int(ahead.argmax())
        return wanted
