"""Greedy max-min selection of one set on a CPU, from its whole distance matrix or from rows as they are asked for.

The way for sets too small for anything cleverer. `selection.dense` does the same for batches on other devices.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from divprune.selection.dense import nearest_of, with_tied_copies
from divprune.selection.distances import Distances

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.floating]


def matrix_picks(distances: Distances, num_keep: int, min_distance: float = -inf) -> tuple[list[int], list[float]]:
    """Return the picks from one set (M, d) and the distance of each to its nearest earlier pick; inf for the first.

    Args:
        distances: Of one set of M tokens on the CPU.
        num_keep: Number of picks, between 1 and M.
        min_distance: Stop before the first pick that is nearer than this to an earlier one.
    """
    matrix = distances.matrix().unsqueeze(0)
    nearest = nearest_of(matrix)
    if not bool(nearest.all()):
        matrix = with_tied_copies(matrix, distances.tokens.unsqueeze(0), nearest == 0)
        nearest = nearest_of(matrix)
    rows = matrix[0].numpy()
    return picks_by_rows(int(nearest.argmax()), num_keep, min_distance, lambda pick, _nearest, _left: rows[pick])


def picks_by_rows(
    seed: int, num_keep: int, min_distance: float, row_of: Callable[[int, Vector, int], Vector]
) -> tuple[list[int], list[float]]:
    """Return the picks of one set that begin with `seed`, and their distances, as `matrix_picks` does.

    Args:
        seed: The first pick.
        num_keep: See `matrix_picks`.
        min_distance: See `matrix_picks`.
        row_of: Returns the distances (M,) of a pick to everyone, given that pick, the distances (M,) of everyone to
            the picks before it, and how many picks are still to come.
    """
    import numpy

    picks, when_chosen = [seed], [inf]
    # NumPy's calls on small arrays cost less than torch's.
    nearest = row_of(seed, numpy.asarray(inf), num_keep - 1).copy()
    nearest[seed] = -inf
    while len(picks) < num_keep:
        pick = int(nearest.argmax())
        distance = float(nearest[pick])
        if distance < min_distance:
            break
        picks.append(pick)
        when_chosen.append(distance)
        if len(picks) < num_keep:
            numpy.minimum(nearest, row_of(pick, nearest, num_keep - len(picks)), out=nearest)
            nearest[pick] = -inf
    return picks, when_chosen
