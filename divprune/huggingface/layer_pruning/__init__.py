"""Pruning inside the LLM: hooks at decoder layers, their state, and later turns."""
