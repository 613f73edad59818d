"""What a pruned call did: which tokens it kept, where they sit in the picture, and what it took."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from divprune.huggingface.families.token_layout import Layout, Size, TokenBox, fit_of
from divprune.huggingface.model_inputs import Kind
from divprune.selection import select


@dataclass(frozen=True)
class ItemReport:
    """One image or video of a call.

    Attributes:
        kind: "image" or "video".
        row: row of the batch.
        num_visual_tokens: M.
        kept_indices: (k,) int64 on the CPU, ascending.
        selection_order: (k,) int64 on the CPU, the same indices in the order they were picked.
        encoding_seconds: wall time of the vision encoder; the items of a call share it by their tokens.
        selection_seconds: wall time of the selection.
        layout: where the visual tokens sit on the processed picture; None if unknown.
        kept_tokens: (k, d) the kept visual tokens, in the order of `kept_indices`; with a method that merges, what they
            have become; where tokens are dropped inside the
            language model, the hidden states by which they were chosen.
    """

    kind: Kind
    row: int
    num_visual_tokens: int
    kept_indices: Tensor
    selection_order: Tensor
    encoding_seconds: float
    selection_seconds: float
    layout: Layout | None = field(repr=False)
    kept_tokens: Tensor = field(repr=False)

    @property
    def num_kept(self) -> int:
        """How many tokens stay."""
        return len(self.kept_indices)

    @cached_property
    def max_min_distance(self) -> float | None:
        """Smallest pairwise cosine distance among the kept tokens; None if fewer than two were kept."""
        if self.num_kept < 2:
            return None
        distance = select(self.kept_tokens, num_keep=self.num_kept).max_min_distance
        return None if distance is None else float(distance)

    def boxes(self, picture_size: Size | None = None, processor: Any | None = None) -> list[TokenBox | None]:
        """Where each kept token sits in the picture, in the order of `kept_indices`.

        Args:
            picture_size: width and height of the original picture (or video frame) in pixels. Without it, the size is
                taken from the model's inputs if they tell (LLaVA-NeXT), else boxes are pixels of the processed picture.
            processor: the model's processor, which knows whether it crops, pads or stretches; without it a centre
                crop is assumed where the inputs do not tell (LLaVA-1.5's default).

        Returns:
            One box a kept token; None for tokens with no place in the picture (newline tokens), and for all tokens if
            the layout of this input is unknown.
        """
        if self.layout is None:
            return [None] * self.num_kept
        if picture_size is None and self.layout.picture_size is None:
            return self.layout.boxes(self.kept_indices, None, "stretch")
        return self.layout.boxes(self.kept_indices, picture_size, fit_of(processor, self.kind))


@dataclass(frozen=True)
class PruningReport:
    """One finished call of `generate` or `forward`.

    Attributes:
        items: every image and video, in the order in which they stand in the prompts; empty for text alone.
        keep_mask: (B, L) bool on the CPU over the ORIGINAL prompt: what the model still saw (False at padding); where
            tokens are dropped at decoder layer K, what layers K and later still saw, while the earlier ones saw all.
        encoding_seconds: wall time of the vision encoder.
        selection_seconds: wall time of the selection, all items together.
        sequence_lengths: columns of the prompt, padding included, that each decoder layer saw.
        kv_cache_bytes: bytes that the keys and values of these columns take in a cache that grows as needed, one
            sequence a row (a static cache is allocated at its full size; beams hold copies). Layers with a sliding
            window hold no more than that, and layers without keys of their own nothing.
        kv_cache_bytes_unpruned: the same for the original prompt.
    """

    items: tuple[ItemReport, ...]
    keep_mask: Tensor
    encoding_seconds: float = 0.0
    selection_seconds: float = 0.0
    sequence_lengths: tuple[int, ...] = ()
    kv_cache_bytes: int = 0
    kv_cache_bytes_unpruned: int = 0

    @property
    def num_visual_tokens(self) -> int:
        """Visual tokens before pruning, all items together."""
        return sum(item.num_visual_tokens for item in self.items)

    @property
    def num_kept(self) -> int:
        """Visual tokens after pruning, all items together."""
        return sum(item.num_kept for item in self.items)
