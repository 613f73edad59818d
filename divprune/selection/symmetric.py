"""Products of all rows with all rows for little more than half their price: the matrix is symmetric."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PANEL = 96
"""Rows of a panel: fewer make products slow, more leave less of the matrix out."""
FEATURES_AT_A_TIME = 1024
"""So many features of some hundred rows stay in the cache from one panel to the next."""


def upper_products(rows: Tensor) -> Tensor:
    """Return (M, M) products of `rows` (M, d) on a CPU, those below the panels mean nothing: see `mirror`."""
    total, width = rows.shape
    products = rows.new_empty((total, total))
    # Sums of half types are rounded at every step but within one product.
    step = FEATURES_AT_A_TIME if rows.element_size() > 2 else width
    for first in range(0, width, step):
        part = rows[:, first : first + step]
        for panel in panels(total):
            products[: panel.stop, panel].addmm_(part[: panel.stop], part[panel].T, beta=1 if first else 0)
    return products


def mirror(matrix: Tensor) -> Tensor:
    """Copy what is above the panels' corners of `matrix` (M, M) to below them, in place, and return it."""
    for panel in panels(len(matrix)):
        matrix[panel, : panel.start] = matrix[: panel.start, panel].T
    return matrix


def panels(total: int) -> Iterator[slice]:
    """Yield the columns of each panel; of it only the rows down to the diagonal, those before `stop`, are needed."""
    for start in range(0, total, PANEL):
        yield slice(start, min(start + PANEL, total))
