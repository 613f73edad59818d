"""FitPrune in the scenes suite: calibrated on training scenes, once for each target."""

from collections.abc import Iterator
from functools import cache
from typing import Any

from transformers import PreTrainedModel

from divprune.calibration.attention_mass import AttentionSamples, attention_masses
from divprune.calibration.fitprune import fit_recipe
from divprune.efficiency.shapes import model_shape
from divprune.efficiency.workloads import Workload
from divprune.embedded import scene
from divprune.evaluation.scenes.cases import Calibrator
from divprune.evaluation.scenes.questions import batches
from divprune.methods import FitPrune

NUM_TRAINING_SCENES = 16


def recipe_tailor(model: PreTrainedModel, processor: Any, workload: Workload) -> Calibrator:
    """Return what calibrates FitPrune to a FLOP target; the scenes are run when it is first asked.

    Args:
        model: a model that answers about scenes, such as the embedded one.
        processor: its processor.
        workload: the prompts whose cost is to meet the target.
    """

    @cache
    def seen() -> AttentionSamples:
        return attention_masses(model, _samples(model, processor))

    def calibrator(target_ratio: float) -> FitPrune:
        return FitPrune(fit_recipe(seen(), target_ratio, model_shape(model.config), [workload]).recipe)

    return calibrator


def _samples(model: PreTrainedModel, processor: Any) -> Iterator[dict[str, Any]]:
    """Return the short questions about each training scene."""
    for seed in range(NUM_TRAINING_SCENES):
        batch = next(batches(model, processor, [scene(seed, "train")]))
        yield {**batch.with_media, "mm_encoder_outputs": {"image": batch.encoded()}}
