"""A pruning method in a package of one's own: the tokens nearest to the middle of the image.

pip install ./own_method
divprune methods centre
divprune run --method centre:aspect=0.5 --num-keep 25
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from divprune.methods import ItemContext, Method, Need


@dataclass(frozen=True)
class CentreTokens(Method):
    """Keep the tokens nearest to the middle of the image, whatever it shows.

    Attributes:
        aspect: what a row's distance counts, a column's being 1; above 1 the kept tokens lie in a wide ellipse.
    """

    name: ClassVar[str] = "centre"
    # Named here, the grid is in the context; a model that cannot tell it refuses the method by name.
    needs: ClassVar[frozenset[Need]] = frozenset({"grid"})

    aspect: float = 1.0

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Return `num_keep` distinct indices of the (M, d) tokens, the most wanted first."""
        frames, rows, columns = context.grid
        row = torch.linspace(-1, 1, rows).view(1, rows, 1) * self.aspect
        column = torch.linspace(-1, 1, columns).view(1, 1, columns)
        distance = (row**2 + column**2).expand(frames, rows, columns).flatten()
        return distance.sort(stable=True).indices[:num_keep].to(visual_tokens.device)
