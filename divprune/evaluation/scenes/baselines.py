"""Rows of the scenes suites that are no registered methods: nothing pruned, nothing shown, and simple baselines."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from divprune.config import Scope
from divprune.methods import DivPrune, ItemContext, Method

UNPRUNED, WITHHELD, BLIND_VIDEO = "unpruned", "picture withheld", "video withheld"
WITHOUT_PRUNING = (UNPRUNED, WITHHELD, BLIND_VIDEO)
"""Names of the rows without pruning."""


@dataclass(frozen=True)
class FirstFrames(Method):
    """Keep the first tokens, which are the first frames; of the last of these perhaps the upper rows alone."""

    name: ClassVar[str] = "first-frames"

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """See `Method.select`."""
        return torch.arange(num_keep, device=visual_tokens.device)


@dataclass(frozen=True)
class Baseline:
    """A method under another name.

    Attributes:
        method: the method.
        scope: as for `prune`.
    """

    method: Method
    scope: Scope = "item"


VIDEO_BASELINES: Mapping[str, Baseline] = {
    "divprune-per-frame": Baseline(DivPrune(), "frame"),
    "first-frames": Baseline(FirstFrames()),
}
