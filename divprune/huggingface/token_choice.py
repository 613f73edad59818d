"""Hidden states at the entrance of a decoder layer -> the method's picks -> the prompt columns that stay."""

import torch
from torch import Tensor

from divprune.huggingface.choose import Picks, choose
from divprune.huggingface.encode import VisualItem
from divprune.huggingface.prompt import source_columns
from divprune.huggingface.shorten import Settings


class TokenChoice:
    """Which visual tokens of a call are still there; called by each layer that drops some.

    Attributes:
        picks: for each item, indices into its original tokens.
        kept_tokens: for each item, (k, d) the hidden states by which its kept tokens were chosen.
    """

    def __init__(self, items: list[VisualItem], settings: Settings, attention_mask: Tensor) -> None:
        """Starts with every token of `items`; `attention_mask` is (B, L)."""
        every_token = [torch.arange(len(item.columns), device=item.columns.device) for item in items]
        self.picks = [Picks(tokens, tokens, 0.0) for tokens in every_token]
        self.kept_tokens = [item.visual_tokens for item in items]
        self._items = items
        self._settings = settings
        self._attention_mask = attention_mask

    def __call__(self, layer: int, hidden: Tensor, slots: Tensor, attention: Tensor | None) -> Tensor:
        """See `layers.Chooser`."""
        left = [
            _left(item, pick.kept_indices, hidden, slots, attention)
            for item, pick in zip(self._items, self.picks, strict=True)
        ]
        chosen = choose(left, self._settings.method, self._settings.budget, self._settings.scope, layer)
        self.kept_tokens = [item.visual_tokens[pick.kept_indices] for item, pick in zip(left, chosen, strict=True)]
        self.picks = [_after(before, pick) for before, pick in zip(self.picks, chosen, strict=True)]
        return source_columns(self.keep_mask(), self._attention_mask)

    def keep_mask(self) -> Tensor:
        """(B, L) bool, False at the placeholders of dropped tokens."""
        keep = torch.ones_like(self._attention_mask, dtype=torch.bool)
        for item, pick in zip(self._items, self.picks, strict=True):
            keep[item.row, item.columns] = False
            keep[item.row, item.columns[pick.kept_indices]] = True
        return keep


def _left(item: VisualItem, tokens: Tensor, hidden: Tensor, slots: Tensor, attention: Tensor | None) -> VisualItem:
    """What is left of an item, as it enters a layer."""
    at = slots[item.row, item.columns[tokens]].to(hidden.device)
    heads = None if attention is None else attention[item.row].to(hidden.device)[:, at]
    left = tokens if len(tokens) < len(item.columns) else None
    return VisualItem(item.kind, item.row, item.columns, hidden[item.row, at], item.layout, item.start, heads, left)


def _after(before: Picks, pick: Picks) -> Picks:
    """Picks among what was left -> picks among all tokens."""
    tokens = before.kept_indices
    order, kept = (tokens[indices.to(tokens.device)] for indices in (pick.selection_order, pick.kept_indices))
    return Picks(order, kept, before.seconds + pick.seconds)
