"""What a selection returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from divprune.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor

PADDING = -1


@dataclass(frozen=True, slots=True)
class Selection:
    """The tokens that were kept, of one set (M, d) or of each row of a batch (B, M, d).

    Rows that keep fewer tokens than others (a validity mask with `keep_ratio`, or `min_distance`) are padded at the
    end: indices with -1, distances with NaN. `row` gives one row without the padding.

    Attributes:
        kept_indices: (k,) or (B, k) int64, ascending: the kept tokens in the order of the input.
        selection_order: (k,) or (B, k) int64: the same indices in the order they were picked. Greedy picks are
            nested: the first k' of them are the answer for k'.
        distance_when_chosen: (k,) or (B, k) float32 (float64 for float64 input): the distance of each pick to its
            nearest earlier pick, aligned with `selection_order`. It never grows. The seed has no earlier pick: inf.
        num_kept: Number of kept tokens; (B,) int64 for a batch.
    """

    kept_indices: Tensor
    selection_order: Tensor
    distance_when_chosen: Tensor
    num_kept: int | Tensor

    @property
    def max_min_distance(self) -> float | Tensor | None:
        """Smallest distance between two kept tokens; None for one token; (B,) for a batch, NaN where one is kept."""
        if isinstance(self.num_kept, int):
            return float(self.distance_when_chosen[-1]) if self.num_kept > 1 else None
        last = (self.num_kept - 1).unsqueeze(1)
        distance = self.distance_when_chosen.gather(1, last).squeeze(1)
        return distance.masked_fill(torch.isinf(distance), torch.nan)

    def row(self, index: int) -> Selection:
        """Return row `index` of a batch as the selection of a single set, without padding."""
        if isinstance(self.num_kept, int):
            raise ValueError("row() needs the selection of a batch (B, M, d), this one is of a single set (M, d)")
        count = int(self.num_kept[index])
        fields = (self.kept_indices, self.selection_order, self.distance_when_chosen)
        kept, order, distance = (field[index, :count] for field in fields)
        return Selection(kept, order, distance, count)
