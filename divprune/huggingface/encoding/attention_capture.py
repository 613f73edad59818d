"""Capture queries and keys of one attention module, whatever computes its attention.

Sdpa returns no probabilities, and eager attention for all rows and layers would cost what pruning saves. So the one
layer gets a copy of its config that names an attention function of ours, which reads queries and keys and hands over
to the function that was there. Masks are built from the model's config and stay as they were.
"""

import copy
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface


class AttentionCapture(ABC):
    """Captures what one attention module computes, until `stop`."""

    def __init__(self, attention: nn.Module) -> None:
        """Start capturing."""
        self._attention = attention
        self._config: Any = attention.config
        self._original = _attention_function(attention)
        self._name = f"divprune_capture_{id(self)}"
        copied: Any = copy.copy(self._config)
        # Not through the property, which would also reach into sub-configs that the copy shares with the original.
        copied._attn_implementation_internal = self._name
        AttentionInterface.register(self._name, self._attend)
        attention.config = copied

    def stop(self) -> None:
        """Put everything back; a second call does nothing."""
        if self._attention.config is not self._config:
            self._attention.config = self._config
            AttentionInterface._global_mapping.pop(self._name, None)

    @abstractmethod
    def capture(self, query: Tensor, key: Tensor, mask: Tensor | None, options: Mapping[str, Any]) -> None:
        """Keep what is wanted of a call: (B, heads, q, d), (B, key heads, n, d), mask (B, 1, q, n), other arguments."""

    def _attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **options: Any,
    ) -> Any:
        with torch.no_grad():
            self.capture(query, key, attention_mask, options)
        return self._original(module, query, key, value, attention_mask, **options)


def _attention_function(attention: nn.Module) -> Callable[..., Any]:
    """Return the function that the module would call by itself."""
    module = sys.modules[type(attention).__module__]
    functions: AttentionInterface = getattr(module, "ALL_ATTENTION_FUNCTIONS", ALL_ATTENTION_FUNCTIONS)
    config: Any = attention.config
    eager: Any = getattr(module, "eager_attention_forward", None)
    return functions.get_interface(config._attn_implementation, eager)
