"""Which tokens: pure tensor functions that know no model. Imports torch only."""

from divprune.selection.max_min import select
from divprune.selection.result import Selection

__all__ = ["Selection", "select"]
