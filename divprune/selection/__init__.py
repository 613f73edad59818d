"""Which tokens: pure tensor functions that know no model. Imports torch only, and Triton on GPUs."""

from divprune.selection.distances import METRICS
from divprune.selection.local_search import refine
from divprune.selection.max_min import select
from divprune.selection.optimality import Certificate, certificate
from divprune.selection.result import Selection

__all__ = ["METRICS", "Certificate", "Selection", "certificate", "refine", "select"]
