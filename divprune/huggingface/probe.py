"""How much the prompt's last token attends to each token in one decoder layer, whatever computes its attention."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from divprune.errors import PruningError
from divprune.huggingface.tap import AttentionTap


class LastRowProbe(AttentionTap):
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
        self._last = last
        self._first = first
        super().__init__(attention)

    def hear(self, query: Tensor, key: Tensor, mask: Tensor | None, options: Mapping[str, Any]) -> None:
        """See `AttentionTap.hear`."""
        unknown = [name for name in ("s_aux", "position_bias") if options.get(name) is not None]
        if unknown:
            raise PruningError(
                f"this method cannot read attention that uses {unknown[0]}; choose one without attention"
            )
        row = _last_row(query, key, mask, self._last, self._first, options)
        self.probabilities = row[..., self._first : self._first + query.shape[2]]


def _last_row(
    query: Tensor, key: Tensor, mask: Tensor | None, last: Tensor, first: int, options: Mapping[str, Any]
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
