"""Attention masks at full length over a cache whose later layers hold less than the earlier ones.

transformers sizes its masks by the first layer of each kind (full, sliding). That layer may be one that lost tokens, as
where the first layers are all sliding ones; its cache then answers as if it had lost none, and the hooks of `layers`
cut the mask.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from divprune.huggingface.layer_pruning.state import DroppedPrompt
from divprune.huggingface.replacing import replaced


def sizes_in_cache(cache: Any, layer: int, num_queries: int) -> tuple[int, int, int]:
    """What a layer's attention will see: (number of keys, cached columns before the first key, cached columns)."""
    if cache is None:
        return num_queries, 0, 0
    # The class's own method: the instance's may be replaced by the one below.
    num_keys, offset = type(cache).get_mask_sizes(cache, num_queries, layer)
    return num_keys, int(offset), int(cache.get_seq_length(layer))


@contextmanager
def sized_at_full_length(cache: Any, prompt: DroppedPrompt) -> Iterator[None]:
    """Lets a cache tell mask sizes as if nothing had been dropped from `prompt`; as before on exit."""

    def sizes(original: Callable[..., tuple[int, int]], query_length: int, layer_idx: int) -> tuple[int, int]:
        dropped = prompt.dropped(layer_idx) if layer_idx < len(cache.layers) else 0
        if dropped == 0:
            return original(query_length, layer_idx)
        return _fuller_sizes(cache.layers[layer_idx], query_length, dropped)

    def offset(original: Callable[..., Any], layer_idx: int = 0) -> Any:
        dropped = prompt.dropped(layer_idx) if layer_idx < len(cache.layers) else 0
        return original(layer_idx) + dropped

    with replaced(cache, "get_mask_sizes", sizes), replaced(cache, "get_query_offset", offset):
        yield


def _fuller_sizes(layer: Any, query_length: int, dropped: int) -> tuple[int, int]:
    """The mask sizes of a cache's layer if it held `dropped` columns more."""
    fuller = copy.copy(layer)
    counters = [name for name in ("cumulative_length", "cumulative_length_int") if hasattr(layer, name)]
    for name in counters:
        setattr(fuller, name, getattr(layer, name) + dropped)
    length, offset = fuller.get_mask_sizes(query_length)
    return (length if counters else length + dropped), offset
