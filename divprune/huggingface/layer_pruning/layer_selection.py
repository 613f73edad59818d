"""Hidden states at the entrance of a decoder layer -> the method's selection -> the prompt tokens that stay."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from divprune.config import PruningConfig
from divprune.huggingface.encoding.items import ItemSelection, VisualItem
from divprune.huggingface.gather_tokens import PADDING, gather_index_of
from divprune.huggingface.layer_pruning.decoder_capture import CAPTURED, CapturedLayer, Requested
from divprune.huggingface.selecting import select_items
from divprune.methods.item_context import Need

DECODER_NEEDS: frozenset[Need] = CAPTURED | {"input_tokens", "text_states", "final_norm"}
"""The needs that are met inside the LLM only."""


class LayerSelector:
    """Which visual tokens of a call are still there; called by each layer that drops some.

    Attributes:
        requested: what the method wants captured of a layer; None if nothing.
        selections: for each item, indices into its original tokens.
        kept_tokens: for each item, (k, d) the hidden states by which its kept tokens were chosen.
    """

    def __init__(
        self,
        items: list[VisualItem],
        config: PruningConfig,
        attention_mask: Tensor,
        instructions: Mapping[int, Tensor],
        final_norm: Callable[[Tensor], Tensor] | None,
    ) -> None:
        """Start with every token.

        Args:
            items: the call's images and videos.
            config: how to prune.
            attention_mask: (B, L).
            instructions: the token indices of the instruction, see `method_inputs.instruction_tokens`.
            final_norm: the norm behind the last decoder layer.
        """
        every_token = [torch.arange(len(item.placeholders), device=item.placeholders.device) for item in items]
        self.selections = [ItemSelection(tokens, tokens, 0.0) for tokens in every_token]
        self.kept_tokens = [item.visual_tokens for item in items]
        self._items = items
        self._config = config
        self._needs = config.method.needs | config.method.layer_needs
        self._attention_mask = attention_mask
        self._merged: dict[int, list[tuple[int, Tensor, Tensor]]] = {}
        self._instructions = instructions
        self._of_prompts = {row: self._of_prompt(row, final_norm) for row in instructions}
        self.requested = self._requested()

    def select(self, layer: int, hidden: Tensor, pruned_index: Tensor, captured: CapturedLayer) -> Tensor:
        """Select, once a call for each layer that drops tokens.

        Args:
            layer: the layer.
            hidden: (B, n, d) hidden states that enter it.
            pruned_index: (B, L) int64: where in the hidden states, and in what was captured, each prompt token stands.
            captured: what was requested.

        Returns:
            (B, L') int64 gather_index, see `gather_index_of`.
        """
        left = [
            self._left(item, selection.kept_indices, layer, hidden, pruned_index, captured)
            for item, selection in zip(self._items, self.selections, strict=True)
        ]
        chosen = select_items(left, self._config, layer)
        self.kept_tokens = [item.visual_tokens[each.kept_indices] for item, each in zip(left, chosen, strict=True)]
        self.selections = [_after(before, each) for before, each in zip(self.selections, chosen, strict=True)]
        self._merged[layer] = [
            (item.row, item.placeholders[after.selection_order], each.merged)
            for item, after, each in zip(self._items, self.selections, chosen, strict=True)
            if each.merged is not None
        ]
        return gather_index_of(self.keep_mask(), self._attention_mask)

    def with_merged(self, layer: int, hidden: Tensor, pruned_index: Tensor) -> Tensor:
        """Put what its anchors became into the hidden states that enter a layer; called in every pass.

        Args:
            layer: the layer, whose tokens are selected.
            hidden: (B * copies, n, d), `copies` rows for each of the prompt.
            pruned_index: (B, L) as for `select`.
        """
        copies = len(hidden) // len(pruned_index)
        for row, indices, tokens in self._merged[layer]:
            rows = torch.arange(row * copies, (row + 1) * copies, device=hidden.device)[:, None]
            at = pruned_index[row, indices].to(hidden.device)
            hidden = hidden.index_put((rows, at), tokens.to(hidden).expand(copies, -1, -1))
        return hidden

    def keep_mask(self) -> Tensor:
        """(B, L) bool, False at the placeholders of dropped tokens."""
        keep = torch.ones_like(self._attention_mask, dtype=torch.bool)
        for item, selection in zip(self._items, self.selections, strict=True):
            keep[item.row, item.placeholders] = False
            keep[item.row, item.placeholders[selection.kept_indices]] = True
        return keep

    def _requested(self) -> Requested | None:
        needs = self._needs & CAPTURED
        if not needs:
            return None
        mask = self._attention_mask
        indices = torch.arange(mask.shape[1], device=mask.device)
        last = (indices * mask.bool()).amax(dim=-1, keepdim=True)
        nothing = indices[:0]
        texts = [self._instructions.get(row, nothing) for row in range(len(mask))]
        visual = [
            torch.cat([nothing, *(item.placeholders for item in self._items if item.row == row)])
            for row in range(len(mask))
        ]
        entering = self._config.method.decoder_layer == "entering"
        return Requested(needs, last, _padded(texts), _padded(visual), entering)

    def _of_prompt(self, row: int, final_norm: Callable[[Tensor], Tensor] | None) -> dict[str, Any]:
        """Look up what the method needs to know of a row's prompt, whatever the layer."""
        tokens = [item.visual_tokens for item in self._items if item.row == row]
        everything: dict[Need, Callable[[], Any]] = {
            "input_tokens": lambda: torch.cat(tokens),
            "final_norm": lambda: final_norm,
        }
        return {name: everything[name]() for name in everything.keys() & self._needs}

    def _left(
        self,
        item: VisualItem,
        tokens: Tensor,
        layer: int,
        hidden: Tensor,
        pruned_index: Tensor,
        captured: CapturedLayer,
    ) -> VisualItem:
        """Describe what is left of an item, as it enters a layer."""
        at = pruned_index[item.row, item.placeholders[tokens]].to(hidden.device)
        text = pruned_index[item.row, self._instructions[item.row]].to(hidden.device)
        own = {name: values[item.row].to(hidden.device) for name, values in captured.items()}
        known: dict[Need, Callable[[], Tensor]] = {
            "attention": lambda: own["attention"][:, at],
            "text_attention": lambda: own["text_attention"][:, : len(text), at],
            "visual_attention": lambda: own["visual_attention"][:, at],
            "visual_peak_attention": lambda: own["visual_peak_attention"][at],
            "keys": lambda: own["keys"][:, at],
            "text_keys": lambda: own["keys"][:, text],
            "visual_query": lambda: own["visual_query"],
            "text_states": lambda: hidden[item.row, text],
        }
        found: dict[str, Any] = {name: known[name]() for name in known.keys() & self._config.method.needs_at(layer)}
        return replace(
            item,
            visual_tokens=hidden[item.row, at],
            context=replace(item.context.at(tokens), **self._of_prompts[item.row], **found),
            left=tokens if len(tokens) < len(item.placeholders) else None,
        )


def _after(before: ItemSelection, selection: ItemSelection) -> ItemSelection:
    """Turn a selection among what was left into one among all tokens."""
    tokens = before.kept_indices
    both = (selection.selection_order, selection.kept_indices)
    order, kept = (tokens[indices.to(tokens.device)] for indices in both)
    return ItemSelection(order, kept, before.seconds + selection.seconds)


def _padded(rows: list[Tensor]) -> Tensor:
    """(B, n) int64 of rows of different lengths."""
    longest = max(len(row) for row in rows)
    return torch.stack([functional.pad(row, (0, longest - len(row)), value=PADDING) for row in rows])
