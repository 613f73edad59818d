"""Pruned models behind an engine: the OpenAI-compatible server, and batches of questions on one machine or many.

Everything the engine knows about pruning is in `divprune.vllm_plugin`; here it is started, fed and scaled out.
"""

from divprune.serving.run import BatchOptions, BatchResult, answer_batch
from divprune.serving.served_methods import architectures_served
from divprune.serving.server import Server, pruned_server

__all__ = ["BatchOptions", "BatchResult", "Server", "answer_batch", "architectures_served", "pruned_server"]
