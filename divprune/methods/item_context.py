"""What is known of an item whose tokens are pruned: the context that methods read, and the names of its fields.

image -> visual tokens -> method.select, which reads the **context** -> prompt -> LLM. An integration fills in the
fields that a method names in `Method.needs` and `Method.reads`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from divprune.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor

Modality = Literal["image", "video"]
Need = str
"""Name of a field of `ItemContext`."""

QUERY_NEEDS: frozenset[Need] = frozenset(
    {"text_embeddings", "attention", "text_attention", "text_keys", "text_states", "clip_text"}
)
"""The needs that let the question have a say."""


class Piece(NamedTuple):
    """A grid of tokens in row-major order among the tokens of an item: a frame, a tile, the whole image.

    Token (row, column) is number `start + row * stride + column`; the stride is larger than the number of columns where
    a image newline token follows each row.
    """

    start: int
    rows: int
    columns: int
    stride: int


_TOKEN_AXIS = tuple({"token_axis": axis} for axis in range(3))
"""Marks a field of `ItemContext` that counts the item's tokens along an axis."""


@dataclass(frozen=True, slots=True)
class ItemContext:
    """What an integration knows about the item (one image or one video) whose tokens are pruned.

    Attributes:
        modality: What the tokens show.
        index: Number of the item within the call, from 0.
        grid: (frames, height, width) of the tokens in row-major order, or None if they do not form such a grid
            (tiles, newline tokens).
        pieces: The grids that the tokens form, one after the other, or None if they are not known.
        seed: Varied by callers who want fresh random draws in each call, such as an evaluation over many samples.
        layer: The decoder layer that the tokens are about to enter; 0 before the LLM.
        vision_attention: (heads, M) float32, how much the vision encoder's CLS token attends to the patches of each
            token in layer `Method.vision_layer`; in encoders without a CLS token, how much all patches attend to them
            on average. One head if the method sets `joins_heads`.
        vision_keys: (heads, M, d_head) float32, the keys of the same layer.
        early_vision_attention: (heads, M) float32, as `vision_attention`, in layer `Method.early_vision_layer`.
        patch_features: (M, d_vision) float32, what the projector makes the tokens from.
        clip_embeddings: (M, d_clip) float32, what the vision encoder's last layer makes of each token's patches, in the
            space of the CLIP checkpoint `Method.clip_folder`.
        clip_text: (S, d_clip) float32, segments of the text in that space.
        cls_features: (M, d_vision) float32, what the projector would make a token of the CLS token from, that of each
            token's image or tile.
        text_embeddings: (T, d) float32, the embeddings of the text after the prompt's last image (of all its text, if
            nothing follows), as the language model reads them. "The text" below is the same T tokens.
        input_tokens: (N, d) all visual tokens of the prompt as they entered the language model, dropped ones too.
        attention: (heads, M) float32, how much the prompt's last token attends to each of the tokens.
        text_attention: (heads, T, M) float32, how much each token of the text attends to each of the tokens.
        visual_attention: (heads, M) float32, how much the prompt's visual tokens that are left, those of all its
            images, attend to each of the tokens on average.
        visual_peak_attention: (M,) float32, the same with the maximum over the heads taken first, for each attending
            token, then the mean.
        keys: (key heads, M, d_head) float32, the tokens' keys in the decoder layer, after rotary embedding.
        text_keys: (key heads, T, d_head) float32, the text's.
        visual_query: (heads, d_head) float32, the mean query in the same layer of the prompt's visual tokens that are
            left, those of all its images, after rotary embedding.
        text_states: (T, d) the text's hidden states, entering `layer`.
        final_norm: (n, d) -> (n, d), the norm behind the last decoder layer.
        has_patch: (M,) bool, False at tokens that come from no patch of the image (image newline tokens), where the
            vision fields are zero. A method that reads the vision encoder never sees such tokens.
        project: (n, d_vision) -> (n, d), the model's projector, if it works on each patch alone.

    A token that stands for several patches gets their mean. Attention and keys without "vision" in their name are of
    the decoder layer before `layer`, or of `layer` itself if `Method.decoder_layer` says so; attention is given as
    probabilities over all that a token attends. What no method asks for by `Method.needs` or `Method.reads` is None.
    """

    modality: Modality = "image"
    index: int = 0
    grid: tuple[int, int, int] | None = None
    pieces: tuple[Piece, ...] | None = None
    seed: int = 0
    layer: int = 0
    vision_attention: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[1])
    vision_keys: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[1])
    early_vision_attention: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[1])
    patch_features: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[0])
    clip_embeddings: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[0])
    clip_text: Tensor | None = None
    cls_features: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[0])
    text_embeddings: Tensor | None = None
    input_tokens: Tensor | None = None
    attention: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[1])
    text_attention: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[2])
    visual_attention: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[1])
    visual_peak_attention: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[0])
    keys: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[1])
    text_keys: Tensor | None = None
    visual_query: Tensor | None = None
    text_states: Tensor | None = None
    final_norm: Callable[[Tensor], Tensor] | None = None
    has_patch: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[0])
    project: Callable[[Tensor], Tensor] | None = None

    def at(self, tokens: Tensor) -> ItemContext:
        """Return the context of some tokens (k,) int64; `grid` and `pieces` stay those of the item."""
        taken: dict[str, Any] = {
            name: value.index_select(axis, tokens.to(value.device))
            for name, axis in TOKEN_AXES.items()
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **taken)

    @staticmethod
    def joined(parts: Sequence[ItemContext]) -> ItemContext:
        """Return the context of several items' tokens, one after the other; the rest is the first one's."""
        if len(parts) == 1:
            return parts[0]
        joined: dict[str, Any] = {
            name: torch.cat([getattr(part, name) for part in parts], dim=axis)
            for name, axis in TOKEN_AXES.items()
            if getattr(parts[0], name) is not None
        }
        return replace(parts[0], **joined)


TOKEN_AXES: dict[str, int] = {
    entry.name: entry.metadata["token_axis"] for entry in fields(ItemContext) if "token_axis" in entry.metadata
}
"""For each field of `ItemContext` that holds something for every token, the axis that counts the tokens."""


def given(context: ItemContext, need: Need, method: str) -> Tensor:
    """Return a tensor of the context.

    Raises:
        ValueError: It is None.
    """
    value: Tensor | None = getattr(context, need)
    if value is None:
        raise ValueError(f"context.{need} must be given to method {method!r}, got None")
    return value
