"""Pruned models behind an engine: the OpenAI-compatible server, and batches of questions on one machine or many.

Everything the engine knows about pruning is in `divprune.vllm_plugin`; here it is started, fed and scaled out.
"""
