"""Which methods can prune a model at a keep ratio that somebody chooses."""

from collections.abc import Sequence

from divprune.checkpoints import LoadedModel
from divprune.config import PruningConfig
from divprune.errors import DivpruneError
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.fitting import require_fitting
from divprune.methods import available_methods
from divprune.methods.base import require_modality
from divprune.web_demo.session import pruning_config


def usable_methods(loaded: LoadedModel) -> list[str]:
    """Return the names of the methods that fit a model with their own parameters, in the package's order."""
    names = []
    for info in available_methods():
        try:
            require_usable(loaded, [info.name])
        except (DivpruneError, ValueError):
            continue
        names.append(info.name)
    return names


def require_usable(loaded: LoadedModel, specs: Sequence[str]) -> None:
    """Refuse methods that cannot prune a model, or take no keep ratio.

    Raises:
        DivpruneError: one is such; says why.
        ValueError: a setting does not apply to the model.
    """
    adapter = ModelAdapter.of(loaded.model)
    for spec in specs:
        config: PruningConfig = pruning_config(spec, 0.5)
        if not any(modality in config.method.modalities for modality in adapter.family.modalities):
            require_modality(config.method, adapter.family.modalities[0])
        require_fitting(adapter, config)
