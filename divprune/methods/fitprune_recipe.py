"""FitPrune's recipe: how many visual tokens go behind the attention of each decoder layer, and how it is fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from divprune.lazy_torch import torch
from divprune.records import read_calibration, unreadable, write_calibration

if TYPE_CHECKING:
    from torch import Tensor

KIND = "FitPrune"


@dataclass(frozen=True)
class FitPruneRecipe:
    """Drop counts by decoder layer.

    Attributes:
        drops: entry l is the number of visual tokens that go behind the attention of decoder layer l, from 0 on; at
            least one is positive, and all together are at most `num_visual_tokens`. The paper's for 90 % begins
            (262, 153, 80, 19, 13, 1, 2).
        num_visual_tokens: M, the visual tokens of an item that the counts are made for.
        model: fingerprint of the model they were fitted to; None if they are for any.
    """

    drops: tuple[int, ...]
    num_visual_tokens: int = 576
    model: str | None = None

    def __post_init__(self) -> None:
        """Check the counts."""
        object.__setattr__(self, "drops", tuple(self.drops))
        if not all(type(count) is int for count in (*self.drops, self.num_visual_tokens)):
            raise TypeError(f"drops and num_visual_tokens must be integers, got {self.drops}, {self.num_visual_tokens}")
        if any(count < 0 for count in self.drops) or not 0 < sum(self.drops) <= self.num_visual_tokens:
            raise ValueError(
                f"drops must be counts of at least 0 that add up to between 1 and num_visual_tokens, "
                f"{self.num_visual_tokens}, got {self.drops}"
            )

    @classmethod
    def load(cls, path: str | Path) -> FitPruneRecipe:
        """Read the recipe of a saved FitPrune calibration.

        Raises:
            CalibrationError: there is no such file, or it holds something else.
        """
        fields = read_calibration(path, KIND)
        try:
            return cls(**fields["recipe"])
        except (ValueError, KeyError, TypeError) as error:
            raise unreadable(path, KIND, error) from error

    def save(self, path: str | Path) -> None:
        """Write a file that `load` reads, whole or not at all; for counts that no calibration of ours found."""
        write_calibration(path, KIND, {"recipe": asdict(self)})

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers behind whose attention tokens go."""
        return tuple(layer for layer, count in enumerate(self.drops) if count)

    def num_left(self, num_visual_tokens: int) -> dict[int, int]:
        """Return, for each of `layers`, how many of an item's tokens are left behind its attention.

        Args:
            num_visual_tokens: the tokens of an item; if they are not M, the sum of the counts up to each layer is
                scaled and rounded.
        """
        dropped = accumulate(self.drops)
        left = [num_visual_tokens - round(gone * num_visual_tokens / self.num_visual_tokens) for gone in dropped]
        return {layer: left[layer] for layer in self.layers}


class AttentionMass(NamedTuple):
    """The attention that one item's visual tokens receive in an unpruned pass.

    `visual` and `text` (layers, M) float: from visual tokens and from the text, layer by layer; the maximum over the
    heads, then the mean over the attending tokens.
    """

    visual: Tensor
    text: Tensor


def fitted(
    masses: Sequence[AttentionMass], alpha: float, model: str | None = None, first_layer: int = 0
) -> FitPruneRecipe | None:
    """Return the recipe of a threshold: `num_deleted`, averaged over items.

    Items of different sizes count by fractions of their tokens, and the recipe is made for their mean size. Rounding is
    of the sums of the counts up to each layer.

    Args:
        masses: of the items, at least one, all with the same layers.
        alpha: in [0, 1].
        model: fingerprint of the model that the masses are of.
        first_layer: the layer that the masses begin with; nothing goes before.

    Returns:
        None if nothing is deleted.
    """
    size = round(sum(mass.visual.shape[1] for mass in masses) / len(masses))
    shares = torch.stack([num_deleted(mass, alpha) / mass.visual.shape[1] for mass in masses])
    sums = [round(share * size) for share in shares.mean(dim=0).cumsum(dim=0).tolist()]
    drops = tuple(after - before for before, after in zip([0, *sums], sums, strict=False))
    return FitPruneRecipe((0,) * first_layer + drops, size, model) if any(drops) else None


def num_deleted(mass: AttentionMass, alpha: float) -> Tensor:
    """Return how many tokens of an item a threshold deletes in each layer.

    In a layer, the tokens that are left are sorted by what they receive from visual queries, ascending, and the longest
    prefix is marked without which all that is left still receives (1 - alpha) of what the layer's visual tokens did
    before any was deleted; the same by what they receive from the text. Tokens that are marked both ways are deleted,
    from here on. So what was deleted in earlier layers counts as lost in the later ones.

    Args:
        mass: of the item.
        alpha: in [0, 1]; 1 deletes everything at once.

    Returns:
        (layers,) float64 counts.
    """
    left = torch.ones(mass.visual.shape[1], dtype=torch.bool)
    counts = []
    for visual, text in zip(mass.visual.double().cpu(), mass.text.double().cpu(), strict=True):
        deleted = _marked(visual, left, alpha) & _marked(text, left, alpha)
        left &= ~deleted
        counts.append(int(deleted.sum()))
    return torch.tensor(counts, dtype=torch.float64)


def _marked(received: Tensor, left: Tensor, alpha: float) -> Tensor:
    """(M,) bool: the longest prefix of the tokens that are `left`, by what each has `received` (M,)."""
    places = left.nonzero().squeeze(1)
    order = places[received[places].sort(stable=True).indices]
    ascending = received[order]
    # Summed from the end, so that nothing at all is left behind the last token.
    remaining = ascending.flip(0).cumsum(0).flip(0) - ascending
    if len(remaining):
        remaining[-1] = 0
    marked = torch.zeros_like(left)
    marked[order[remaining >= (1 - alpha) * received.sum()]] = True
    return marked
