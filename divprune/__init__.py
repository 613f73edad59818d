"""Diversity-based visual token pruning for large multimodal models.

An image becomes visual tokens, the few that differ most from each other are kept, and the language model reads a
shorter prompt (DivPrune, CVPR 2025, arXiv 2503.02175). Names are imported on first use, so `import divprune` is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from divprune.config import PruningConfig
    from divprune.huggingface import Pruning, attach, prune
    from divprune.methods import VTW, DivPrune, FastV, RandomTokens, UniformGrid, get_method
    from divprune.selection import Certificate, Selection, certificate, select
    from divprune.tuned_setting import load_tuned

__version__ = "0.1.0"

_HOME = {
    "Certificate": "divprune.selection",
    "DivPrune": "divprune.methods",
    "FastV": "divprune.methods",
    "Pruning": "divprune.huggingface",
    "PruningConfig": "divprune.config",
    "RandomTokens": "divprune.methods",
    "Selection": "divprune.selection",
    "UniformGrid": "divprune.methods",
    "VTW": "divprune.methods",
    "attach": "divprune.huggingface",
    "certificate": "divprune.selection",
    "get_method": "divprune.methods",
    "load_tuned": "divprune.tuned_setting",
    "prune": "divprune.huggingface",
    "select": "divprune.selection",
}

__all__ = [
    "VTW",
    "Certificate",
    "DivPrune",
    "FastV",
    "Pruning",
    "PruningConfig",
    "RandomTokens",
    "Selection",
    "UniformGrid",
    "__version__",
    "attach",
    "certificate",
    "get_method",
    "load_tuned",
    "prune",
    "select",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
