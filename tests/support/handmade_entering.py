"""What a rule of the hand-made reference is told at the entrance of a layer."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tests.support.handmade import ShortRow
from tests.support.models.every_family import Case

Rule = Callable[["Entering"], Tensor | tuple[Tensor, Tensor]]
"""What is known at the entrance of layer K -> the kept ones of the n tokens that an item has left, ascending.

A rule that merges gives weights (k, n) too: what each kept one becomes."""


@dataclass
class Entering:
    """An item's tokens before layer K.

    `hidden` (n, d), `attention` (heads, n) of their turn's last token to them, `total` tokens before any was dropped.
    `text_attention` (heads, t, n) of the text behind their turn's pictures, of all if none follows; `visual_attention`
    (heads, v, n) of the visual tokens that the turn has left; `keys` (key heads, n, d_head) and `text_keys`, all of the
    layer before; `text_states` (t, d); `text_embeddings` (t, d) and
    `input_tokens` (m, d) of all of the turn's pictures, as they enter the language model. `own_attention()` (heads, n)
    is `attention` in layer K itself, run on all that enters it but what earlier turns drop there.
    """

    hidden: Tensor
    attention: Tensor
    total: int
    text_attention: Tensor
    visual_attention: Tensor
    keys: Tensor
    text_keys: Tensor
    text_states: Tensor
    text_embeddings: Tensor
    input_tokens: Tensor
    own_attention: Callable[[], Tensor]


@dataclass
class FullRow:
    """One row of a batch without its padding, all visual tokens in place.

    `items`: for each image or video the places of its tokens; `ends`: for each the place behind its turn.
    """

    case: Case
    row: ShortRow
    items: list[Tensor]
    ends: list[int]
    padding: int

    @property
    def embeddings(self) -> Tensor:
        """(1, n, d)."""
        return self.row.embeddings

    @property
    def positions(self) -> Tensor:
        """(1, n) or (4, 1, n)."""
        return self.row.positions


@dataclass
class Before:
    """Of the layer before: attention weights (heads, n, n) and keys (key heads, n, d_head); empty if it has none."""

    weights: Tensor = field(default_factory=lambda: torch.empty(0, 0, 0))
    keys: Tensor = field(default_factory=lambda: torch.empty(0, 0, 0))


@dataclass
class Own:
    """Of layer K itself: weights (heads, m, m), worked out when asked for, of the places (m,) that it sees."""

    places: Tensor
    weights: Callable[[], Tensor]

    def attention(self, item: Tensor, end: int) -> Tensor:
        """(heads, n) how much the last place before `end` attends to what is left of an item."""
        asking = int((self.places < end).sum()) - 1
        return self.weights()[:, asking, torch.isin(self.places, item)]


def entering_of(
    row: FullRow, number: int, places: Tensor, hidden: Tensor, before: Before, embedded: Tensor, own: Own
) -> Entering:
    """What a rule is told of item `number` of a row, of which `places` are left; `embedded` (n, d) before layer 0."""
    item, end = row.items[number], row.ends[number]
    turn = [each for each, its_end in zip(row.items, row.ends, strict=True) if its_end == end]
    pictures = torch.cat(turn)
    begin = max((other for other in row.ends if other < end), default=0)
    is_text = (places >= begin) & (places < end) & ~torch.isin(places, pictures)
    after = is_text & (places > pictures.max())
    text = (after if after.any() else is_text).nonzero().squeeze(-1)
    at = torch.isin(places, item).nonzero().squeeze(-1)
    asking = int((places < end).sum()) - 1
    heard = len(before.weights) > 0
    return Entering(
        hidden=hidden[at],
        attention=before.weights[:, asking, at] if heard else before.weights,
        total=len(item),
        text_attention=before.weights[:, text][:, :, at] if heard else before.weights,
        visual_attention=before.weights[:, torch.isin(places, pictures)][:, :, at] if heard else before.weights,
        keys=before.keys[:, at] if len(before.keys) else before.keys,
        text_keys=before.keys[:, text] if len(before.keys) else before.keys,
        text_states=hidden[text],
        text_embeddings=embedded[places[text]],
        input_tokens=embedded[pictures],
        own_attention=lambda: own.attention(item, end),
    )
