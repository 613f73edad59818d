"""Pruning before the LLM: a shorter prompt, its positions, its cache, and later turns."""
