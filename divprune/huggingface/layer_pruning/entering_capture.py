"""Capture attention and keys of the layer that tokens are about to enter, before any of them is dropped.

The layer is run up to its attention, which then stops it: its norm, projections and rotary embeddings are its own, the
row that a method reads is all that is computed of the attention, and what it would cache goes to a copy.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from divprune.huggingface.layer_pruning.decoder_capture import CapturedLayer, DecoderCapture, Requested


class _Captured(Exception):
    """The attention was reached."""


class _EnteringCapture(DecoderCapture):
    """Captures what one attention module is about to compute, and stops it there."""

    def capture(self, query: Tensor, key: Tensor, mask: Tensor | None, options: Mapping[str, Any]) -> None:
        """Keep what was requested, and go no further."""
        super().capture(query, key, mask, options)
        raise _Captured


def captured_on_entering(layer: Any, requested: Requested, first: int, inputs: Mapping[str, Any]) -> CapturedLayer:
    """Capture what a layer's attention would be of all that is about to enter it.

    Args:
        layer: the decoder layer.
        requested: what to capture, its indices counted in queries.
        first: which key belongs to the first query; those before it come from the cache.
        inputs: the layer's arguments; no cache among them is changed.
    """
    capture = _EnteringCapture(layer.self_attn, requested, first)
    try:
        # Not by calling it, which would run the hooks.
        with torch.no_grad():
            layer.forward(**inputs)
    except _Captured:
        pass
    finally:
        capture.stop()
    return capture.captured


def set_aside(cache: Any, index: int) -> Any:
    """Return a cache to which layer `index` may add without a trace in `cache`; None for None."""
    if cache is None:
        return None
    aside = copy.copy(cache)
    aside.layers = list(cache.layers)
    # A cache that was not used yet makes its layers when it is.
    for own in cache.layers[index : index + 1]:
        aside.layers[index] = copied = copy.copy(own)
        tensors = {name: value for name, value in vars(own).items() if isinstance(value, Tensor)}
        vars(copied).update({name: value.detach().clone() for name, value in tensors.items()})
    return aside
