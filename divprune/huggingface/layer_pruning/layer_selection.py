"""Hidden states at the entrance of a decoder layer -> the method's picks -> the prompt columns that stay."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from divprune.huggingface.encoding.clues import Clues
from divprune.huggingface.encoding.encode import VisualItem
from divprune.huggingface.gather_columns import PADDING, source_columns
from divprune.huggingface.input_pruning.shorten import Settings
from divprune.huggingface.layer_pruning.decoder_capture import HEARD, Asked, Heard
from divprune.huggingface.selecting import Picks, choose
from divprune.methods.base import Need


class TokenChoice:
    """Which visual tokens of a call are still there; called by each layer that drops some.

    Attributes:
        asked: what the method wants to hear of the layer before; None if nothing.
        picks: for each item, indices into its original tokens.
        kept_tokens: for each item, (k, d) the hidden states by which its kept tokens were chosen.
    """

    def __init__(
        self,
        items: list[VisualItem],
        settings: Settings,
        attention_mask: Tensor,
        texts: Mapping[int, Tensor],
        final_norm: Callable[[Tensor], Tensor] | None,
    ) -> None:
        """Starts with every token.

        Args:
            items: the call's images and videos.
            settings: how to prune.
            attention_mask: (B, L).
            texts: the columns of the text, see `texts.text_columns`.
            final_norm: the norm behind the last decoder layer.
        """
        every_token = [torch.arange(len(item.columns), device=item.columns.device) for item in items]
        self.picks = [Picks(tokens, tokens, 0.0) for tokens in every_token]
        self.kept_tokens = [item.visual_tokens for item in items]
        self._items = items
        self._settings = settings
        self._attention_mask = attention_mask
        self._became: dict[int, list[tuple[int, Tensor, Tensor]]] = {}
        self._texts = texts
        self._of_prompts = {row: self._of_prompt(row, final_norm) for row in texts}
        self.asked = self._asked()

    def __call__(self, layer: int, hidden: Tensor, slots: Tensor, heard: Heard) -> Tensor:
        """See `layers.Chooser`."""
        left = [
            self._left(item, pick.kept_indices, hidden, slots, heard)
            for item, pick in zip(self._items, self.picks, strict=True)
        ]
        chosen = choose(left, self._settings.method, self._settings.budget, self._settings.scope, layer)
        self.kept_tokens = [item.visual_tokens[pick.kept_indices] for item, pick in zip(left, chosen, strict=True)]
        self.picks = [_after(before, pick) for before, pick in zip(self.picks, chosen, strict=True)]
        self._became[layer] = [
            (item.row, item.columns[after.selection_order], pick.merged)
            for item, after, pick in zip(self._items, self.picks, chosen, strict=True)
            if pick.merged is not None
        ]
        return source_columns(self.keep_mask(), self._attention_mask)

    def merged(self, layer: int, hidden: Tensor, slots: Tensor) -> Tensor:
        """See `chooser.Chooser`."""
        copies = len(hidden) // len(slots)
        for row, columns, tokens in self._became[layer]:
            rows = torch.arange(row * copies, (row + 1) * copies, device=hidden.device)[:, None]
            at = slots[row, columns].to(hidden.device)
            hidden = hidden.index_put((rows, at), tokens.to(hidden).expand(copies, -1, -1))
        return hidden

    def keep_mask(self) -> Tensor:
        """(B, L) bool, False at the placeholders of dropped tokens."""
        keep = torch.ones_like(self._attention_mask, dtype=torch.bool)
        for item, pick in zip(self._items, self.picks, strict=True):
            keep[item.row, item.columns] = False
            keep[item.row, item.columns[pick.kept_indices]] = True
        return keep

    def _asked(self) -> Asked | None:
        needs = self._settings.method.needs & HEARD
        if not needs:
            return None
        mask = self._attention_mask
        columns = torch.arange(mask.shape[1], device=mask.device)
        last = (columns * mask.bool()).amax(dim=-1, keepdim=True)
        nothing = columns[:0]
        texts = [self._texts.get(row, nothing) for row in range(len(mask))]
        visual = [torch.cat([nothing, *self._columns(row)]) for row in range(len(mask))]
        return Asked(needs, last, _padded(texts), _padded(visual))

    def _columns(self, row: int) -> list[Tensor]:
        return [item.columns for item in self._items if item.row == row]

    def _of_prompt(self, row: int, final_norm: Callable[[Tensor], Tensor] | None) -> dict[str, Any]:
        """What the method needs to know of a row's prompt, whatever the layer."""
        needs = self._settings.method.needs
        tokens = [item.visual_tokens for item in self._items if item.row == row]
        everything: dict[Need, Callable[[], Any]] = {
            "input_tokens": lambda: torch.cat(tokens),
            "final_norm": lambda: final_norm,
        }
        return {name: value() for name, value in everything.items() if name in needs}

    def _left(self, item: VisualItem, tokens: Tensor, hidden: Tensor, slots: Tensor, heard: Heard) -> VisualItem:
        """What is left of an item, as it enters a layer."""
        at = slots[item.row, item.columns[tokens]].to(hidden.device)
        text = slots[item.row, self._texts[item.row]].to(hidden.device)
        said = {name: values[item.row].to(hidden.device) for name, values in heard.items()}
        known: dict[Need, Callable[[], Tensor]] = {
            "attention": lambda: said["attention"][:, at],
            "text_attention": lambda: said["text_attention"][:, : len(text), at],
            "visual_attention": lambda: said["visual_attention"][:, at],
            "keys": lambda: said["keys"][:, at],
            "text_keys": lambda: said["keys"][:, text],
            "text_states": lambda: hidden[item.row, text],
        }
        found: dict[str, Any] = {name: known[name]() for name in known.keys() & self._settings.method.needs}
        return replace(
            item,
            visual_tokens=hidden[item.row, at],
            clues=replace((item.clues or Clues()).at(tokens), **self._of_prompts[item.row], **found),
            left=tokens if len(tokens) < len(item.columns) else None,
        )


def _after(before: Picks, pick: Picks) -> Picks:
    """Picks among what was left -> picks among all tokens."""
    tokens = before.kept_indices
    order, kept = (tokens[indices.to(tokens.device)] for indices in (pick.selection_order, pick.kept_indices))
    return Picks(order, kept, before.seconds + pick.seconds)


def _padded(rows: list[Tensor]) -> Tensor:
    """(B, n) int64 of rows of different lengths."""
    longest = max(len(row) for row in rows)
    return torch.stack([functional.pad(row, (0, longest - len(row)), value=PADDING) for row in rows])
