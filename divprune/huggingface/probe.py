"""How much the prompt's last token attends to each token in one decoder layer, whatever computes its attention.

Sdpa returns no probabilities, and eager attention for all rows and layers would cost what pruning saves. So the one
layer gets a copy of its config that names an attention function of ours, which reads queries and keys, computes the one
row and hands over to the function that was there. Masks are built from the model's config and stay as they were.
"""

import copy
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from divprune.errors import PruningError


class LastRowProbe:
    """Listens to one attention module until `stop`.

    Attributes:
        probabilities: (B, heads, q) float32, how much each row's last token attends to the queries' own tokens, of all
            that it attends; None before the pass.
    """

    def __init__(self, attention: nn.Module, last: Tensor, first: int = 0) -> None:
        """Starts listening.

        Args:
            attention: a decoder layer's attention module.
            last: (B,) int64, the query of each row to look at. The module may see each row several times (beams).
            first: which key belongs to the first query; those before it come from the cache.
        """
        self.probabilities: Tensor | None = None
        self._attention = attention
        self._last = last
        self._first = first
        self._config: Any = attention.config
        self._original = _attention_function(attention)
        self._name = f"divprune_probe_{id(self)}"
        copied: Any = copy.copy(self._config)
        # Not through the property, which would also reach into sub-configs that the copy shares with the original.
        copied._attn_implementation_internal = self._name
        AttentionInterface.register(self._name, self._attend)
        attention.config = copied

    def stop(self) -> None:
        """Puts everything back; a second call does nothing."""
        if self._attention.config is not self._config:
            self._attention.config = self._config
            AttentionInterface._global_mapping.pop(self._name, None)

    def _attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **options: Any,
    ) -> Any:
        """An attention function; shapes (B, heads, q, d), (B, key heads, n, d), mask (B, 1, q, n)."""
        unknown = [name for name in ("s_aux", "position_bias") if options.get(name) is not None]
        if unknown:
            raise PruningError(
                f"this method cannot read attention that uses {unknown[0]}; choose one without attention"
            )
        with torch.no_grad():
            row = _last_row(query, key, attention_mask, self._last, self._first, options)
            self.probabilities = row[..., self._first : self._first + query.shape[2]]
        return self._original(module, query, key, value, attention_mask, **options)


def _attention_function(attention: nn.Module) -> Callable[..., Any]:
    """The function that the module would call by itself."""
    module = sys.modules[type(attention).__module__]
    functions: AttentionInterface = getattr(module, "ALL_ATTENTION_FUNCTIONS", ALL_ATTENTION_FUNCTIONS)
    config: Any = attention.config
    eager: Any = getattr(module, "eager_attention_forward", None)
    return functions.get_interface(config._attn_implementation, eager)


def _last_row(
    query: Tensor, key: Tensor, mask: Tensor | None, last: Tensor, first: int, options: dict[str, Any]
) -> Tensor:
    copies = len(query) // len(last)
    last = last.to(query.device)
    rows = torch.arange(len(last), device=query.device)
    chosen = query[::copies][rows, :, last].float()  # (B, heads, d)
    keys = key[::copies].float()
    groups = chosen.unflatten(1, (keys.shape[1], -1))  # (B, key heads, heads a key head, d)
    scale = options.get("scaling") or chosen.shape[-1] ** -0.5
    logits = (groups @ keys.transpose(-1, -2)).flatten(1, 2) * scale  # (B, heads, n)
    if options.get("softcap") is not None:
        logits = torch.tanh(logits / options["softcap"]) * options["softcap"]
    return _masked(logits, mask, last, first, copies).softmax(dim=-1)


def _masked(logits: Tensor, mask: Tensor | None, last: Tensor, first: int, copies: int) -> Tensor:
    """Logits (B, heads, n) with the keys masked that the last token does not attend."""
    if mask is None:
        later = torch.arange(logits.shape[-1], device=logits.device) > first + last[:, None]
        return logits.masked_fill(later[:, None], -torch.inf)
    per_row = mask[::copies] if len(mask) > 1 else mask.expand(len(last), -1, -1, -1)
    row = per_row[torch.arange(len(last), device=mask.device), :, last]  # (B, 1, n)
    if row.dtype == torch.bool:
        return logits.masked_fill(~row, -torch.inf)
    return logits + row.float()
