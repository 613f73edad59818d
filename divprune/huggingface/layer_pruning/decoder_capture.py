"""Capture attention rows and keys of one decoder layer, whatever computes its attention: read from its queries."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from divprune.errors import PruningError
from divprune.huggingface.encoding.attention_capture import AttentionCapture
from divprune.huggingface.gather_tokens import PADDING
from divprune.methods.item_context import Need
from divprune.methods.vision_inputs import READ_AT_ONCE

ATTENTION: frozenset[Need] = frozenset({"attention", "text_attention", "visual_attention", "visual_peak_attention"})
KEYS: frozenset[Need] = frozenset({"keys", "text_keys"})
VISUAL_QUERY: Need = "visual_query"
CAPTURED = ATTENTION | KEYS | {VISUAL_QUERY}
"""The needs that are met by capturing in the layer before one that drops tokens, or in that one itself."""


@dataclass(frozen=True)
class Requested:
    """What a method requests of a layer.

    The tokens whose attention it asks for are told as indices of the prompt, `PADDING` in rows that have fewer.

    Attributes:
        needs: which of `CAPTURED`.
        last: (B, 1) int64 each row's last token.
        text: (B, T) int64 its text.
        visual: (B, V) int64 its visual tokens.
        entering: whether the layer is the one that the tokens are about to enter, not the one before.
    """

    needs: frozenset[Need]
    last: Tensor
    text: Tensor
    visual: Tensor
    entering: bool = False

    def at(self, pruned_index: Tensor) -> "Requested":
        """Return the same, with each index of the prompt replaced by its entry in `pruned_index` (B, L)."""
        last, text, visual = (index_at(pruned_index, each) for each in (self.last, self.text, self.visual))
        return replace(self, last=last, text=text, visual=visual)


CapturedLayer = dict[Need, Tensor]
"""What was captured of the q tokens that went in, float32, whatever of it was requested:

"attention" and "visual_attention" (B, heads, q), "visual_peak_attention" (B, q), "text_attention" (B, heads, T, q), 0
at padding, "keys" (B, key heads, q, d_head), which are the text's too, and "visual_query" (B, heads, d_head)."""


def index_at(pruned_index: Tensor, indices: Tensor) -> Tensor:
    """`pruned_index` (B, L) of indices (B, n); `PADDING` at padding."""
    indices = indices.to(pruned_index.device)
    return pruned_index.gather(-1, indices.clamp(min=0)).masked_fill(indices == PADDING, PADDING)


class DecoderCapture(AttentionCapture):
    """Captures what one attention module computes, until `stop`.

    Attributes:
        captured: what it captured; nothing before the pass.
    """

    def __init__(self, attention: nn.Module, requested: Requested, first: int = 0) -> None:
        """Start capturing.

        Args:
            attention: a decoder layer's attention module.
            requested: what to capture, its indices counted in queries. The module may see each row several times
                (beams).
            first: which key belongs to the first query; those before it come from the cache.
        """
        self.captured: CapturedLayer = {}
        self._requested = requested
        self._first = first
        super().__init__(attention)

    def capture(self, query: Tensor, key: Tensor, mask: Tensor | None, options: Mapping[str, Any]) -> None:
        """Keep what was requested of one call."""
        requested, own = self._requested, slice(self._first, self._first + query.shape[2])
        rows = _Rows(query, key, mask, options, self._first, len(requested.last))
        if requested.needs & ATTENTION:
            _require_readable(options)
        if "attention" in requested.needs:
            self.captured["attention"] = rows.of(requested.last)[:, :, 0, own]
        if "text_attention" in requested.needs:
            self.captured["text_attention"] = rows.of(requested.text)[..., own]
        if "visual_attention" in requested.needs:
            self.captured["visual_attention"] = rows.mean(requested.visual)[..., own]
        if "visual_peak_attention" in requested.needs:
            self.captured["visual_peak_attention"] = rows.peak(requested.visual)[..., own]
        if requested.needs & KEYS:
            self.captured["keys"] = rows.keys[:, :, own]
        if VISUAL_QUERY in requested.needs:
            self.captured[VISUAL_QUERY] = rows.mean_query(requested.visual)


def _require_readable(options: Mapping[str, Any]) -> None:
    unknown = [name for name in ("s_aux", "position_bias") if options.get(name) is not None]
    if unknown:
        raise PruningError(f"this method cannot read attention that uses {unknown[0]}; choose one without attention")


class _Rows:
    """Some rows of the attention probabilities of one pass through a layer."""

    def __init__(
        self, query: Tensor, key: Tensor, mask: Tensor | None, options: Mapping[str, Any], first: int, batch_size: int
    ) -> None:
        self._copies = len(query) // batch_size
        self._query = query[:: self._copies]  # (B, heads, q, d)
        self.keys = key[:: self._copies].float()  # (B, key heads, n, d)
        self._mask = mask[:: self._copies] if mask is not None and len(mask) > 1 else mask
        self._scale = options.get("scaling") or query.shape[-1] ** -0.5
        self._softcap = options.get("softcap")
        self._first = first

    def of(self, queries: Tensor) -> Tensor:
        """(B, heads, m, n) of the queries (B, m); 0 at padding."""
        queries = queries.to(self._query.device)
        chosen = self._chosen(queries)
        groups = chosen.unflatten(1, (self.keys.shape[1], -1))  # (B, key heads, heads a key head, m, d)
        logits = (groups @ self.keys[:, :, None].mT).flatten(1, 2) * self._scale
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        probabilities = self._masked(logits, queries).softmax(dim=-1)
        return probabilities.masked_fill((queries == PADDING)[:, None, :, None], 0.0)

    def mean(self, queries: Tensor, heads: Callable[[Tensor], Tensor] = lambda each: each) -> Tensor:
        """Average over the queries (B, m) that are no padding, without holding all at once.

        Args:
            queries: (B, m).
            heads: what is averaged of (B, heads, m, n) probabilities: all heads, or what several of them are joined to.

        Returns:
            (B, heads, n).
        """
        at_once = self._query.shape[0] * self._query.shape[1] * self.keys.shape[2]
        parts = queries.split(max(1, READ_AT_ONCE // at_once), dim=-1)
        total = cast(Tensor, sum(heads(self.of(part)).sum(dim=2) for part in parts))
        count = (queries != PADDING).sum(dim=-1).clamp(min=1).to(total.device)
        return total / count[:, None, None]

    def peak(self, queries: Tensor) -> Tensor:
        """(B, n) the same of the head that attends most, which may be another one for each query."""
        return self.mean(queries, lambda each: each.amax(dim=1, keepdim=True))[:, 0]

    def mean_query(self, queries: Tensor) -> Tensor:
        """(B, heads, d) the mean of the queries (B, m) that are no padding."""
        queries = queries.to(self._query.device)
        chosen = self._chosen(queries).masked_fill((queries == PADDING)[:, None, :, None], 0.0)
        return chosen.sum(dim=2) / (queries != PADDING).sum(dim=-1).clamp(min=1)[:, None, None]

    def _chosen(self, queries: Tensor) -> Tensor:
        """(B, heads, m, d) the queries (B, m), float32; any at padding."""
        rows = torch.arange(len(queries), device=queries.device)[:, None]
        return self._query.transpose(1, 2)[rows, queries.clamp(min=0)].transpose(1, 2).float()

    def _masked(self, logits: Tensor, queries: Tensor) -> Tensor:
        """Logits (B, heads, m, n) with the keys masked that the queries do not attend."""
        mask = self._mask
        if mask is None:
            keys = torch.arange(logits.shape[-1], device=logits.device)
            return logits.masked_fill((keys > self._first + queries[..., None])[:, None], -torch.inf)
        mask = mask.expand(len(queries), -1, -1, -1).to(logits.device)
        rows = torch.arange(len(queries), device=mask.device)[:, None]
        taken = mask.transpose(1, 2)[rows, queries.clamp(min=0)].transpose(1, 2)  # (B, 1, m, n)
        return logits.masked_fill(~taken, -torch.inf) if taken.dtype == torch.bool else logits + taken.float()
