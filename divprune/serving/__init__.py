"""Pruned models behind an engine: the OpenAI-compatible server, and batches of questions on one machine or many.

Everything the engine knows about pruning is in `divprune.vllm_plugin`; here it is started, fed and scaled out. Names
are imported on first use: the process that a server runs under needs none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from divprune.serving.run import BatchOptions, BatchResult, answer_batch
    from divprune.serving.served_methods import architectures_served
    from divprune.serving.server import Server, pruned_server

_HOME = {
    "BatchOptions": "run",
    "BatchResult": "run",
    "Server": "server",
    "answer_batch": "run",
    "architectures_served": "served_methods",
    "pruned_server": "server",
}

__all__ = ["BatchOptions", "BatchResult", "Server", "answer_batch", "architectures_served", "pruned_server"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"divprune.serving.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
