"""What a pruned call did: which tokens it kept, where they sit in the image, and what it took.

What only a reader of the report needs (places in the image, distances, bytes of the cache) is worked out when it is
read; until then the report holds shapes, never pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from divprune.config import Order
from divprune.huggingface.cache_layers import CacheLayers
from divprune.huggingface.encoding.items import Encoding, ItemSelection, VisualItem
from divprune.huggingface.families.token_layout import Layout, Size, TokenBox, fit_of
from divprune.huggingface.gather_tokens import gather_tokens
from divprune.huggingface.model_inputs import CACHE
from divprune.methods.item_context import Modality
from divprune.selection import select

CACHED_ITEMS = "__divprune_items__"
"""Name under which a cache carries the items of the prompt that it begins with."""


@dataclass(frozen=True)
class ItemReport:
    """One image or video of a call.

    Attributes:
        modality: "image" or "video".
        row: row of the batch.
        num_visual_tokens: M.
        num_encoded: of these, how many the vision encoder made, fewer than M with `encoder`; `keep_ratio` is of them.
        kept_indices: (k,) int64 on the CPU, ascending.
        selection_order: (k,) int64 on the CPU, the same indices in the order they were picked.
        encoding_seconds: wall time of the vision encoder; the items of a call share it by their tokens.
        selection_seconds: wall time of the selection.
        kept_tokens: (k, d) the kept visual tokens, in the order in which the LLM read them; with a method that merges,
            what they have become; where tokens are dropped inside the LLM, the hidden states by which they were chosen.
    """

    modality: Modality
    row: int
    num_visual_tokens: int
    num_encoded: int
    kept_indices: Tensor
    selection_order: Tensor
    encoding_seconds: float
    selection_seconds: float
    kept_tokens: Tensor = field(repr=False)
    find_layout: Callable[[], Layout | None] = field(repr=False)

    @property
    def num_kept(self) -> int:
        """How many tokens stay."""
        return len(self.kept_indices)

    @cached_property
    def layout(self) -> Layout | None:
        """Where the visual tokens sit on the processed image; None if unknown."""
        return self.find_layout()

    @cached_property
    def max_min_distance(self) -> float | None:
        """Smallest pairwise cosine distance among the kept tokens; None if fewer than two were kept."""
        if self.num_kept < 2:
            return None
        distance = select(self.kept_tokens, num_keep=self.num_kept).max_min_distance
        return None if distance is None else float(distance)

    def boxes(self, image_size: Size | None = None, processor: Any | None = None) -> list[TokenBox | None]:
        """Locate each kept token in the image, in the order of `kept_indices`.

        Args:
            image_size: width and height of the original image (or video frame) in pixels. Without it, the size is
                taken from the model's inputs if they tell (LLaVA-NeXT), else boxes are pixels of the processed image.
            processor: the model's processor, which knows whether it crops, pads or stretches; without it a centre
                crop is assumed where the inputs do not tell (LLaVA-1.5's default).

        Returns:
            One box a kept token; None for tokens with no place in the image (image newline tokens), and for all tokens
            if the layout of this input is unknown.
        """
        if self.layout is None:
            return [None] * self.num_kept
        if image_size is None and self.layout.image_size is None:
            return self.layout.boxes(self.kept_indices, None, "stretch")
        return self.layout.boxes(self.kept_indices, image_size, fit_of(processor, self.modality))


@dataclass(frozen=True)
class PruningReport:
    """One finished call of `generate` or `forward`; `print(report)` says it in a line.

    Attributes:
        items: every image and video, in the order in which they stand in the prompts; for text alone those of the
            prompt that its cache begins with, if any.
        keep_mask: (B, L) bool on the CPU over the ORIGINAL prompt: what the model still saw (False at padding); where
            tokens are dropped at decoder layer K, what layers K and later still saw, while the earlier ones saw all.
        encoding_seconds: wall time of the vision encoder.
        selection_seconds: wall time of the selection, all items together.
        sequence_lengths: tokens of the prompt, padding included, that each decoder layer saw.
        num_tokens: the same for the original prompt.
        cache_layers: what a token costs in each layer's cache.
        gather_index: (B, L') int64 on the CPU: the original token at each place of the pruned prompt, -1 at padding.
    """

    items: tuple[ItemReport, ...]
    keep_mask: Tensor
    encoding_seconds: float
    selection_seconds: float
    sequence_lengths: tuple[int, ...]
    num_tokens: int = field(repr=False)
    cache_layers: CacheLayers = field(repr=False)
    gather_index: Tensor = field(repr=False)

    def __str__(self) -> str:
        """Say in a line what was kept, in which time, and what it saves."""
        kept = "text alone"
        if self.items:
            kept = f"{self.num_kept} of {self.num_visual_tokens} tokens ({self.num_kept / self.num_visual_tokens:.1%})"
            if self.num_encoded < self.num_visual_tokens:
                kept += f", {self.num_encoded} encoded"
        before, after = (f"{size / 2**20:.3g}" for size in (self.kv_cache_bytes_unpruned, self.kv_cache_bytes))
        return f"{kept}, selected in {1000 * self.selection_seconds:.1f} ms, KV cache {before} -> {after} MiB"

    def shorten(self, per_token: Tensor, fill: int = -100) -> Tensor:
        """Gather what has a number for each token of the original prompt, such as labels, to the pruned prompt.

        Args:
            per_token: (B, L).
            fill: the value at padding.

        Returns:
            (B, L'), beside the logits of `forward`.

        Raises:
            ValueError: the shape is another.
        """
        if per_token.shape != self.keep_mask.shape:
            raise ValueError(f"per_token must be {tuple(self.keep_mask.shape)}, got {tuple(per_token.shape)}")
        return gather_tokens(per_token, self.gather_index.to(per_token.device), fill)

    def spread(self, per_kept_token: Tensor, fill: float = float("nan")) -> Tensor:
        """Lay out what has an entry for each token of the pruned prompt, such as logits, over the original prompt.

        Args:
            per_kept_token: (B, L', ...).
            fill: the value at dropped tokens and at padding.

        Returns:
            (B, L, ...), of the same dtype.

        Raises:
            ValueError: the shape is another.
        """
        if per_kept_token.shape[:2] != self.gather_index.shape:
            expected = tuple(self.gather_index.shape)
            raise ValueError(f"per_kept_token must begin with {expected}, got {tuple(per_kept_token.shape)}")
        rows, places = (self.gather_index >= 0).nonzero(as_tuple=True)
        spread = per_kept_token.new_full((*self.keep_mask.shape, *per_kept_token.shape[2:]), fill)
        spread[rows, self.gather_index[rows, places]] = per_kept_token[rows, places]
        return spread

    @property
    def num_visual_tokens(self) -> int:
        """Visual tokens before pruning, all items together."""
        return sum(item.num_visual_tokens for item in self.items)

    @property
    def num_encoded(self) -> int:
        """Visual tokens that the vision encoder made, all items together; all, unless an encoder option left fewer."""
        return sum(item.num_encoded for item in self.items)

    @property
    def num_kept(self) -> int:
        """Visual tokens after pruning, all items together."""
        return sum(item.num_kept for item in self.items)

    @property
    def kv_cache_bytes(self) -> int:
        """Bytes of keys and values of the prompt in a cache that grows as needed, one sequence a row.

        A static cache is allocated at its full size, and beams hold copies. Layers with a sliding window hold no more
        than that, and layers without keys of their own nothing.
        """
        return self.cache_layers.total(len(self.keep_mask), self.sequence_lengths)

    @property
    def kv_cache_bytes_unpruned(self) -> int:
        """The same for the original prompt."""
        return self.cache_layers.total(len(self.keep_mask), (self.num_tokens,) * len(self.sequence_lengths))


def call_report(
    model: PreTrainedModel,
    keep_mask: Tensor,
    num_tokens: int,
    sequence_lengths: int | tuple[int, ...],
    encoding: Encoding | None = None,
    selections: list[ItemSelection] | None = None,
    kept_tokens: list[Tensor] | None = None,
    gather_index: Tensor | None = None,
) -> PruningReport:
    """Report a call.

    Args:
        model: the model.
        keep_mask: (B, L) bool over the original prompt.
        num_tokens: of the original prompt, padding included.
        sequence_lengths: what each decoder layer saw of them; one number if all saw the same.
        encoding: what was encoded; None for text alone.
        selections: what was kept of each of its items.
        kept_tokens: for each item the (k, d) kept tokens.
        gather_index: (B, L') int64; None if nothing was dropped.
    """
    items: list[tuple[tuple[int, int], ItemReport]] = []
    seconds = 0.0 if encoding is None else encoding.seconds
    if encoding is not None and selections is not None and kept_tokens is not None:
        total = sum(len(item.visual_tokens) for item in encoding.items)
        items = [
            ((item.row, int(item.placeholders[0])), _item_report(item, selection, kept, seconds / total))
            for item, selection, kept in zip(encoding.items, selections, kept_tokens, strict=True)
        ]
        items.sort(key=lambda entry: entry[0])
    layers = CacheLayers.of(model)
    lengths = (sequence_lengths,) * len(layers.most_tokens) if isinstance(sequence_lengths, int) else sequence_lengths
    return PruningReport(
        items=tuple(item for _, item in items),
        keep_mask=keep_mask.cpu(),
        encoding_seconds=seconds,
        selection_seconds=sum(selection.seconds for selection in selections or ()),
        sequence_lengths=lengths,
        num_tokens=num_tokens,
        cache_layers=layers,
        gather_index=torch.arange(num_tokens).expand_as(keep_mask) if gather_index is None else gather_index.cpu(),
    )


def continued(
    report: PruningReport | None, earlier: tuple[ItemReport, ...], cache: Any, output: Any
) -> PruningReport | None:
    """Give a report of text alone the items of the prompt that it goes on from, and let the cache carry all items.

    Args:
        report: of the finished call; None if it tells nothing.
        earlier: the items that the cache carried before it.
        cache: the cache that was given; None without one.
        output: what the call returned; it may hold the cache.
    """
    items = earlier + (report.items if report is not None else ())
    for holder in (cache, output.get(CACHE) if isinstance(output, dict) else None):
        if holder is not None:
            setattr(holder, CACHED_ITEMS, items)
    return report if report is None or report.items else replace(report, items=items)


def kept_tokens_of(items: list[VisualItem], selections: list[ItemSelection], order: Order) -> list[Tensor]:
    """Take each item's kept tokens (k, d), in the order in which the LLM reads them."""
    orders = [each.kept_indices if order == "sorted" else each.selection_order for each in selections]
    return [item.visual_tokens[kept] for item, kept in zip(items, orders, strict=True)]


def _item_report(
    item: VisualItem, selection: ItemSelection, kept_tokens: Tensor, seconds_per_token: float
) -> ItemReport:
    count = len(item.visual_tokens)
    return ItemReport(
        modality=item.modality,
        row=item.row,
        num_visual_tokens=count,
        num_encoded=count if item.encoded is None else len(item.encoded),
        kept_indices=selection.kept_indices.cpu(),
        selection_order=selection.selection_order.cpu(),
        encoding_seconds=seconds_per_token * count,
        selection_seconds=selection.seconds,
        kept_tokens=kept_tokens.detach(),
        find_layout=item.find_layout,
    )
