"""FitPrune: layer by layer, drop as many tokens as a few samples showed the attention can do without."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from divprune.methods.base import Count, Fidelity, Method, Paper, Stage
from divprune.methods.fitprune_recipe import FitPruneRecipe
from divprune.methods.item_context import ItemContext, Need, given
from divprune.methods.scores import ranked

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class FitPrune(Method):
    """Largest product of attention from text and from visual tokens, as many in each layer as calibration found.

    A recipe says how many visual tokens go behind the attention of each decoder layer. Those with the smallest
    cross_i * self_i go, where cross_i is the attention that token i receives from the text after the last image: first
    the maximum over the heads, for each text token, then the mean over the text; self_i is the same from the visual
    tokens that are left. The method says itself how many tokens stay, so `keep_ratio` and `num_keep` are left out. For
    items of another size than the recipe's, its counts are scaled.

    Deviations: the paper drops right after a layer's attention; here tokens go at the entrance of the next layer. The
    same tokens reach that layer, and the cost is one feed-forward block more for each dropped token; nothing can go
    behind the last layer's attention. Calibration reads one unpruned pass, where the authors run the pruned model again
    for each threshold.

    W. Ye, Q. Wu, W. Lin, Y. Zhou, "Fit and Prune: Fast and Training-free Visual Token Pruning for Multi-modal Large
    Language Models", AAAI 2025, https://arxiv.org/abs/2409.10197

    Attributes:
        recipe: the counts, or a file that `divprune calibrate fitprune` wrote; no two models share one.
    """

    name: ClassVar[str] = "fitprune"
    nested: ClassVar[bool] = True
    acts: ClassVar[str] = "inside the LLM"
    paper: ClassVar[Paper | None] = Paper(
        title="Fit and Prune: Fast and Training-free Visual Token Pruning for Multi-modal Large Language Models",
        year=2025,
        url="https://arxiv.org/abs/2409.10197",
        citation="Ye, Wu, Lin, Zhou, AAAI 2025",
    )
    fidelity: ClassVar[Fidelity] = "documented"
    count: ClassVar[Count] = "schedule"
    needs: ClassVar[frozenset[Need]] = frozenset({"text_attention", "visual_peak_attention"})
    recipe: FitPruneRecipe | str | Path | None = None

    def __post_init__(self) -> None:
        """Read the recipe if it is a file.

        Raises:
            ValueError: there is no recipe.
            TypeError: it is something else.
            CalibrationError: the file cannot be read or holds something else.
        """
        if self.recipe is None or self.recipe == "":
            raise ValueError(
                "recipe must be given: method 'fitprune' is calibrated for each model; run `divprune calibrate "
                "fitprune --model MODEL --target-percent P --output FILE`, then choose fitprune:recipe=FILE"
            )
        if isinstance(self.recipe, (str, Path)):
            object.__setattr__(self, "recipe", FitPruneRecipe.load(self.recipe))
        elif not isinstance(self.recipe, FitPruneRecipe):
            raise TypeError(f"recipe must be a FitPruneRecipe or the path of a file, got {self.recipe!r}")
        object.__setattr__(self, "calibrated_on", self._recipe.model)

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(layer + 1 for layer in self._recipe.layers)

    def schedule(self, num_visual_tokens: int) -> tuple[Stage, ...]:
        """Return what the recipe leaves, which may be nothing."""
        left = self._recipe.num_left(num_visual_tokens)
        return tuple(Stage(layer + 1, num_left) for layer, num_left in left.items())

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep`, ties go to the lowest index."""
        from_visual, from_text = received(context, self.name)
        return ranked(from_visual * from_text)[:num_keep]

    @property
    def _recipe(self) -> FitPruneRecipe:
        return cast(FitPruneRecipe, self.recipe)


def received(context: ItemContext, method: str) -> tuple[Tensor, Tensor]:
    """Return the attention that each token receives on average, from the head that gives most: self and cross.

    Args:
        context: of the tokens.
        method: who asks, for errors.

    Returns:
        Two tensors (M,) float32: from visual tokens and from the text.

    Raises:
        ValueError: the context has no such attention, or there is no text.
    """
    text = given(context, "text_attention", method)
    if not text.shape[1]:
        raise ValueError(f"the prompt must hold text for method {method!r}, which ranks tokens by its attention")
    return given(context, "visual_peak_attention", method), text.amax(dim=0).mean(dim=0)
