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
    from divprune.vllm_plugin.families import FAMILIES, ServedFamily
    from divprune.vllm_plugin.overrides import pruned_overrides
    from divprune.vllm_plugin.settings import PruningSettings
    from divprune.vllm_plugin.versions import TESTED_VERSIONS, require_tested

_HOME = {
    "FAMILIES": "families",
    "PruningSettings": "settings",
    "ServedFamily": "families",
    "TESTED_VERSIONS": "versions",
    "pruned_overrides": "overrides",
    "require_tested": "versions",
}

__all__ = ["FAMILIES", "TESTED_VERSIONS", "PruningSettings", "ServedFamily", "pruned_overrides", "require_tested"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"divprune.vllm_plugin.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
