"""Pruning for Hugging Face transformers models. Names are imported on first use: what is supported is told without."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from divprune.huggingface.families.registry import Family, supported_families
    from divprune.huggingface.families.token_layout import TokenBox
    from divprune.huggingface.pruning import Pruning, attach, prune
    from divprune.huggingface.report import ItemReport, PruningReport

_HOME = {
    "Family": "families.registry",
    "ItemReport": "report",
    "Pruning": "pruning",
    "PruningReport": "report",
    "TokenBox": "families.token_layout",
    "attach": "pruning",
    "prune": "pruning",
    "supported_families": "families.registry",
}

__all__ = [
    "Family",
    "ItemReport",
    "Pruning",
    "PruningReport",
    "TokenBox",
    "attach",
    "prune",
    "supported_families",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"divprune.huggingface.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
