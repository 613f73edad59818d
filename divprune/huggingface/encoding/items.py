"""What the vision encoder made of a call: every image and video with its visual tokens, and which of them stay."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from torch import Tensor
from transformers.utils.generic import ModelOutput

from divprune.budget import Budget
from divprune.huggingface.families.token_layout import Layout, pieces_of
from divprune.methods.item_context import ItemContext, Modality, Piece


def no_layout_known() -> Layout | None:
    """Stand for a layout that nobody knows."""
    return None


@dataclass(frozen=True)
class VisualItem:
    """One image or video: its visual tokens and the placeholders that they fill.

    Attributes:
        modality: "image" or "video".
        row: row of the batch.
        placeholders: (M,) int64 token indices in the prompt, ascending.
        visual_tokens: (M, d) after the projector, in the LLM's embedding space; inside the LLM, the hidden states of
            the tokens that are still there.
        start: index of the item's first token among all tokens of the encoder's output.
        left: (n,) int64 inside the LLM, where some tokens are gone: indices of those that are still there.
            `visual_tokens` and `context` are theirs, `placeholders` and `layout` those of all M.
        encoded: (n,) int64, ascending, where an encoder option left fewer tokens than M: indices of those; the other
            tokens are copies of them. None if all were encoded.
        is_part: whether tokens of the image are missing among these, so that they form no grids.
        context: what else the method asked for.
        entry_size: tokens of each of the encoder's entries, which are tiles if an item has several; 0 if they differ.
        tile_size: tokens of each tile, where the encoder works tile by tile; 0 if it does not, or they differ.
        find_layout: works out `layout`, from shapes; it holds no pixels.
    """

    modality: Modality
    row: int
    placeholders: Tensor
    visual_tokens: Tensor
    start: int
    left: Tensor | None = None
    encoded: Tensor | None = None
    is_part: bool = False
    context: ItemContext = field(default_factory=ItemContext)
    entry_size: int = 0
    tile_size: int = 0
    find_layout: Callable[[], Layout | None] = no_layout_known

    @cached_property
    def layout(self) -> Layout | None:
        """Where the tokens sit in the image, None if unknown."""
        return self.find_layout()

    @property
    def pieces(self) -> tuple[Piece, ...] | None:
        """The grids that the tokens form, None if unknown or if they form none."""
        return None if self.is_part else pieces_of(self.layout, len(self.placeholders), self.entry_size)

    @property
    def candidates(self) -> "VisualItem":
        """The item as methods see it: of its tokens those that were encoded."""
        if self.encoded is None:
            return self
        return replace(
            self,
            placeholders=self.placeholders[self.encoded],
            visual_tokens=self.visual_tokens[self.encoded],
            encoded=None,
            is_part=True,
            context=self.context.at(self.encoded),
            entry_size=0,
            tile_size=0,
            find_layout=partial(self._layout_at, self.encoded),
        )

    def _layout_at(self, tokens: Tensor) -> Layout | None:
        return None if self.layout is None else self.layout.at(tokens.to(self.layout.frame.device))


@dataclass(frozen=True)
class Group:
    """Tokens that compete for one budget: `tokens[i]` of item `items[i]`, as indices into what is left of the item.

    `total` counts the tokens that are gone, too; `budget` says how many of them stay, None if the method does. `piece`
    is the grid that the tokens of a tile form, None if they form none.
    """

    items: list[int]
    tokens: list[Tensor]
    total: int
    budget: Budget | None
    piece: Piece | None = None


@dataclass(frozen=True)
class ItemSelection:
    """The kept tokens of one item.

    Attributes:
        selection_order: (k,) int64 token indices in pick order.
        kept_indices: (k,) int64 the same, ascending.
        seconds: wall time of the selection; items of one group share its time equally.
        merged: (k, d) what the kept tokens, in pick order, become; None if they stay what they are.
    """

    selection_order: Tensor
    kept_indices: Tensor
    seconds: float
    merged: Tensor | None = None

    def among_all(self, item: VisualItem) -> "ItemSelection":
        """Return the selection from the candidates of an item with the indices of the item's tokens."""
        if item.encoded is None:
            return self
        order, kept = item.encoded[self.selection_order], item.encoded[self.kept_indices]
        return replace(self, selection_order=order, kept_indices=kept)


@dataclass(frozen=True)
class Encoding:
    """What the vision encoder made of a call.

    Attributes:
        outputs: the encoder's output per modality, as `mm_encoder_outputs` takes them.
        items: every image and video; those of one modality in the order in which their placeholders stand.
        consumed: names of the inputs that the encoder has used up.
        seconds: wall time of the encoder.
        first_column: token index in the prompt from which on `items` are all that the encoder was given.
    """

    outputs: dict[Modality, ModelOutput]
    items: list[VisualItem]
    consumed: set[str]
    seconds: float
    first_column: int = 0
