"""All knowledge of vLLM: visual tokens pruned inside its engine, as an out-of-tree plugin.

image -> visual tokens -> selection -> prompt -> LLM, where the engine needs the length of the prompt before the vision
encoder has run: the front end shortens the prompt to `divprune.budget`'s count (`processor`), the workers choose that
many rows of the encoder's output (`models`, `mrope`). Nothing happens unless a pruned architecture is asked for:

    llm = vllm.LLM(model, hf_overrides=pruned_overrides(model, keep_ratio=0.098))

Every process of vLLM imports this package, so names are imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from divprune.vllm_plugin.families import SERVED_FAMILIES, ServedFamily
    from divprune.vllm_plugin.overrides import pruned_overrides
    from divprune.vllm_plugin.settings import PruningSettings
    from divprune.vllm_plugin.versions import TESTED_RANGE

_HOME = {
    "SERVED_FAMILIES": "families",
    "PruningSettings": "settings",
    "ServedFamily": "families",
    "TESTED_RANGE": "versions",
    "pruned_overrides": "overrides",
}

__all__ = ["SERVED_FAMILIES", "TESTED_RANGE", "PruningSettings", "ServedFamily", "pruned_overrides"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"divprune.vllm_plugin.{_HOME[name]}"), name)
    if name.startswith("Pruned"):
        return _model(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _model(name: str) -> Any:
    """Return a pruned model's class, if vLLM's are what it is made for; vLLM asks for it by this name."""
    from divprune.vllm_plugin import contracts
    from divprune.vllm_plugin.families import SERVED_FAMILIES

    if name not in {family.model for family in SERVED_FAMILIES}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    contracts.require((*contracts.REGISTRATION, *contracts.MODELS))
    return getattr(import_module("divprune.vllm_plugin.family_models"), name)
