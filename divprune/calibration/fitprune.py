"""FitPrune's calibration: from the attention of a few samples to drop counts that meet a FLOP target, kept as JSON."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from divprune.calibration.attention_mass import AttentionSamples, attention_masses
from divprune.efficiency.flops import Accounting, compare
from divprune.efficiency.shapes import ModelShape, model_shape
from divprune.efficiency.workloads import Workload
from divprune.errors import CalibrationError
from divprune.huggingface.fingerprint import require_same_model
from divprune.methods import FitPrune, FitPruneRecipe
from divprune.methods.fitprune_recipe import KIND, fitted
from divprune.records import read_calibration, unreadable, write_calibration

BISECTIONS = 20
"""The paper stops at a width of 0.01; going on costs nothing, since the samples are run once."""


@dataclass(frozen=True)
class FitPruneCalibration:
    """How many visual tokens a model can do without in each layer.

    Attributes:
        recipe: the counts.
        alpha: the threshold that gave them: the fraction of attention that each layer may lose.
        target_ratio: cost pruned / unpruned that was asked for.
        flop_ratio: cost that the recipe has; counts are whole numbers.
        accounting: how cost was counted.
        num_samples: prompts that were run.
    """

    recipe: FitPruneRecipe
    alpha: float
    target_ratio: float
    flop_ratio: float
    accounting: Accounting
    num_samples: int

    def method_for(self, model: PreTrainedModel) -> FitPrune:
        """Return the method with these counts.

        Raises:
            CalibrationError: they were found on another model.
        """
        if self.recipe.model is not None:
            require_same_model(model, self.recipe.model, "run calibrate_fitprune again")
        return FitPrune(self.recipe)

    def save(self, path: str | Path) -> None:
        """Write a JSON file, whole or not at all; `FitPrune(recipe=path)` reads it."""
        write_calibration(path, KIND, asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> "FitPruneCalibration":
        """Read what `save` wrote.

        Raises:
            CalibrationError: there is no such file, or it holds something else.
        """
        fields = read_calibration(path, KIND)
        try:
            return cls(recipe=FitPruneRecipe(**fields.pop("recipe")), **fields)
        except (ValueError, KeyError, TypeError) as error:
            raise unreadable(path, KIND, error) from error


def calibrate_fitprune(
    model: PreTrainedModel,
    samples: Iterable[Mapping[str, Any]],
    *,
    flop_ratio: float,
    accounting: Accounting = "paper",
    first_layer: int = 0,
    after_call: Callable[[], None] = lambda: None,
) -> FitPruneCalibration:
    """Find the drop counts at which the prefill costs a fraction of what it does unpruned.

    The samples run once, unpruned. A threshold alpha deletes in each layer the visual tokens that both their own kind
    and the text can do without, see `divprune.methods.fitprune_recipe.num_deleted`, and alpha is bisected in [0, 1]
    until the cost of the mean counts meets the target (FitPrune, arXiv 2409.10197; a few samples).

    Args:
        model: a model of a supported family that is not pruned.
        samples: model inputs as the processor makes them, with images; each may be a batch.
        flop_ratio: target, cost pruned / unpruned, in (0, 1), on average over the samples.
        accounting: "paper" counts the language model, "exact" encoder and selection too.
        first_layer: the first decoder layer behind whose attention tokens may go, for models whose first layers cannot
            lose any.
        after_call: called after each forward pass.

    Raises:
        ValueError: there are no samples or they have no images, or an argument is out of range.
        CalibrationError: no counts meet the target.
        UnsupportedModelError: the model's layers cannot lose tokens, or its FLOPs are not known.
    """
    _require_ratio(flop_ratio)
    seen = attention_masses(model, samples, first_layer, after_call)
    workloads = [Workload(*prompt) for prompt in seen.prompts]
    return fit_recipe(seen, flop_ratio, model_shape(model.config), workloads, accounting)


def fit_recipe(
    seen: AttentionSamples,
    flop_ratio: float,
    shape: ModelShape,
    workloads: Sequence[Workload],
    accounting: Accounting = "paper",
) -> FitPruneCalibration:
    """Find the counts by what samples have shown.

    Args:
        seen: attention to the visual tokens of the samples.
        flop_ratio: target, as for `calibrate_fitprune`.
        shape: of the model.
        workloads: the prompts whose mean cost is to meet the target, at least one.
        accounting: "paper" or "exact".

    Raises:
        ValueError: the target is out of range.
        CalibrationError: no counts meet it.
    """
    _require_ratio(flop_ratio)

    def found(alpha: float) -> FitPruneCalibration | None:
        recipe = fitted(seen.masses, alpha, seen.model, seen.first_layer)
        if recipe is None:
            return None
        cost = compare(shape, list(workloads), FitPrune(recipe), None, accounting).ratio
        return FitPruneCalibration(recipe, alpha, flop_ratio, cost, accounting, len(seen.prompts))

    return _nearest(flop_ratio, found)


def _nearest(target: float, found: Callable[[float], FitPruneCalibration | None]) -> FitPruneCalibration:
    """Bisect alpha; on the whole, a larger one costs less.

    What goes early eats into what later layers may lose, so the cost need not fall with every step. Bisection then ends
    at one of the places where it crosses the target; the nearest that was seen is taken.
    """
    low, high = 0.0, 1.0
    nearest = found(high)
    if nearest is None or nearest.flop_ratio > target:
        lowest = 1.0 if nearest is None else nearest.flop_ratio
        raise CalibrationError(
            f"the FLOP target must lie between {lowest:.2%} (every visual token dropped as early as it can be) and "
            f"100.00% (none dropped) of the unpruned cost for this model and these prompts, got {target:.2%}"
        )
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        here = found(middle)
        if here is None or here.flop_ratio > target:
            low = middle
        else:
            high = middle
        if here is not None and abs(here.flop_ratio - target) < abs(nearest.flop_ratio - target):
            nearest = here
    return nearest


def _require_ratio(flop_ratio: float) -> None:
    if not 0 < flop_ratio < 1:
        raise ValueError(f"flop_ratio must be in (0, 1), got {flop_ratio}")
