"""Runs that cannot work, found by the model's config alone: nothing is loaded or asked for them."""

from collections.abc import Sequence

from transformers import PreTrainedConfig

from divprune.checkpoints import checkpoint_config
from divprune.config import PruningConfig
from divprune.efficiency.reference_models import architecture_config
from divprune.evaluation.runs import UNPRUNED, EvaluationRun
from divprune.experiments.paper.settings import recipe_file
from divprune.experiments.plan import medium_of
from divprune.experiments.subjects import architecture_of, shown_as
from divprune.huggingface.fitting import misfits
from divprune.methods.item_context import Modality


def misfit_reasons(runs: Sequence[EvaluationRun]) -> dict[EvaluationRun, str]:
    """Say of runs on Hugging Face models why they cannot work; those that can, as far as a config tells, are left out.

    Raises:
        CheckpointError: the config of a model cannot be read.
        UnsupportedModelError: a model cannot be pruned.
    """
    pruned = [run for run in runs if run.method != UNPRUNED and recipe_file(run.method) is None]
    reasons: dict[EvaluationRun, str] = {}
    for model in dict.fromkeys(run.model for run in pruned):
        own = [run for run in pruned if run.model == model]
        config = _config(model)
        found = misfits(config, [(_pruning(run), _shown(run, config.model_type)) for run in own])
        reasons |= {run: reason for run, reason in zip(own, found, strict=True) if reason is not None}
    return reasons


def _config(model: str) -> PreTrainedConfig:
    architecture = architecture_of(model)
    return checkpoint_config(model) if architecture is None else architecture_config(architecture)


def _pruning(run: EvaluationRun) -> PruningConfig:
    names = ("keep_ratio", "num_keep", "positions", "scope", "newlines")
    return PruningConfig.parse(run.method, **{name: getattr(run, name) for name in names})


def _shown(run: EvaluationRun, model_type: str) -> set[Modality]:
    medium = medium_of(run.task)
    return set() if medium is None else {shown_as(medium, model_type)}
