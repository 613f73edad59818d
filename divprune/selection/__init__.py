"""Which tokens: pure tensor functions that know no model. Imports torch only."""

from divprune.selection.distances import METRICS
from divprune.selection.max_min import select
from divprune.selection.optimality import Certificate, certificate
from divprune.selection.result import Selection
from divprune.selection.swaps import refine

__all__ = ["METRICS", "Certificate", "Selection", "certificate", "refine", "select"]
