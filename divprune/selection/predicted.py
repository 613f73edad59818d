"""Greedy max-min selection of small sets: the picks are predicted from a part of the features, and decided exactly.

For sets of some hundred tokens on a CPU. Of 576 tokens 56 picks need 56 rows of distances, a tenth of the matrix; what
makes them wait for each other is that the next row is known only after the last one. Cosines of a quarter of the
features, in bfloat16 where the hardware multiplies it, cost a small part of the matrix and tell the next picks well
enough to compute their rows together. Every pick is then decided by exact distances; where the prediction was wrong,
the next ones are predicted anew from there.

Where a part of the features does not tell (independent noise), nothing is gained, and a sample of the tokens says so.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from divprune.lazy_torch import torch
from divprune.selection.approximate_distances import multiplies_bfloat16
from divprune.selection.distances import ALL, Distances, unit_rows
from divprune.selection.first_pick import Race

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

FEATURES_PER_PREDICTED = 4
"""One feature of so many predicts."""
FEWEST_FEATURES = 256
SAMPLED_TOKENS = 32
TELLING_CORRELATION = 0.9
"""Between cosines of the part and of all features of a sample, from which on the part predicts."""
PREDICTED_FIRST, PREDICTED_TOGETHER = 160, 32
"""Picks that are predicted at a time: before any is known, and from then on."""
MEASURED_FIRST = 8
PANELS = 4


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
    if distances.tokens.shape[-1] < FEWEST_FEATURES or not _tells(distances):
        return None
    predicted = _predicted_cosines(distances)
    nearest = predicted.max(dim=1)
    race = Race(distances)
    race.meet(ALL, nearest.indices)
    if not bool(race.nearest.all()):
        return None
    greedy = _Greedy(distances, predicted.numpy())
    likely = int(nearest.values.argmin())
    first = greedy.predict(likely, greedy.unmet(), min(PREDICTED_FIRST, num_keep + num_keep // 4))
    # Those that come first in the race, and all that are likely to be picked: rows of one product.
    greedy.rows |= _measured(
        race, torch.tensor([*race.farthest(race.everyone, MEASURED_FIRST).tolist(), *first]).unique()
    )
    while len(promising := race.farthest(race.in_race(), MEASURED_FIRST)):
        greedy.rows |= _measured(race, promising)
    return greedy.run(race.winner(), num_keep, min_distance) if bool(race.nearest.all()) else None


def _measured(race: Race, tokens: Tensor) -> dict[int, NDArray[np.floating]]:
    return dict(zip(tokens.tolist(), race.measure(tokens).numpy(), strict=True))


def _tells(distances: Distances) -> bool:
    """Tell whether a part of the features says about how near tokens are, by a sample of them."""
    some = distances.tokens[:: -(-len(distances) // SAMPLED_TOKENS)]
    whole, part = (unit @ unit.T for unit in map(unit_rows, (some, _part(some))))
    pairs = torch.triu_indices(len(some), len(some), offset=1)
    if pairs.shape[1] < 2:
        return False
    both = torch.stack([each[pairs[0], pairs[1]] for each in (whole, part)])
    # Of constants it is NaN, which fails the comparison.
    return bool(torch.corrcoef(both)[0, 1] >= TELLING_CORRELATION)


def _part(tokens: Tensor) -> Tensor:
    return tokens[:, : max(1, tokens.shape[-1] // FEATURES_PER_PREDICTED)]


def _predicted_cosines(distances: Distances) -> Tensor:
    """Return about the cosines (M, M), each token at -inf from itself."""
    part = unit_rows(_part(distances.tokens))
    if multiplies_bfloat16(part.device):
        part = part.bfloat16()
    total = len(part)
    matrix = distances.tokens.new_empty((total, total))
    step = -(-total // PANELS)
    # As `Distances.matrix`: each panel of rows stops at the diagonal and is mirrored.
    for start in range(0, total, step):
        end = min(total, start + step)
        matrix[start:end, :end] = part[start:end] @ part[:end].T
        matrix[:start, start:end] = matrix[start:end, :start].T
    return matrix.fill_diagonal_(-inf)


class _Greedy:
    """Picks by exact rows; of many at a time, those that the predicted distances ask for.

    Attributes:
        predicted: About the cosines, (M, M).
        rows: Exact distances (M,) of tokens to everyone, by token.
    """

    def __init__(self, distances: Distances, predicted: NDArray[np.floating]) -> None:
        self._distances, self.predicted = distances, predicted
        self.rows: dict[int, NDArray[np.floating]] = {}
        import numpy

        # NumPy's calls on small arrays cost less than torch's.
        self._minimum = numpy.minimum

    def unmet(self) -> NDArray[np.floating]:
        """Return distances (M,) to no token."""
        return torch.full_like(self._distances.tokens[:, 0], inf).numpy()

    def run(self, seed: int, num_keep: int, min_distance: float) -> tuple[list[int], list[float]]:
        """See `predicted_picks`."""
        picks, when_chosen = [seed], [inf]
        nearest = self.unmet()
        while True:
            self._minimum(nearest, self._row(picks[-1], nearest, num_keep - len(picks)), out=nearest)
            nearest[picks[-1]] = -inf
            if len(picks) == num_keep:
                return picks, when_chosen
            pick = int(nearest.argmax())
            distance = float(nearest[pick])
            if distance < min_distance:
                return picks, when_chosen
            picks.append(pick)
            when_chosen.append(distance)

    def _row(self, pick: int, nearest: NDArray[np.floating], num_left: int) -> NDArray[np.floating]:
        if pick not in self.rows:
            wanted = self.predict(pick, nearest, min(PREDICTED_TOGETHER, num_left + 1))
            block = self._distances.block(torch.tensor(wanted), ALL).numpy()
            self.rows |= zip(wanted, block, strict=True)
        return self.rows[pick]

    def predict(self, pick: int, nearest: NDArray[np.floating], number: int) -> list[int]:
        """Return `pick` and those of the next `number` - 1 picks after it whose rows are not known."""
        ahead, wanted = nearest.copy(), []
        for _ in range(number):
            if pick not in self.rows:
                wanted.append(pick)
            self._minimum(ahead, self.rows[pick] if pick in self.rows else 1 - self.predicted[pick], out=ahead)
            ahead[pick] = -inf
            pick = int(ahead.argmax())
        return wanted
