"""Ask a method about the tokens of one item, and apply what it answers: kept tokens, merged ones mixed and projected.

image -> visual tokens -> **the method's selection, applied** -> prompt -> LLM. The same in every engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, cast

from divprune.lazy_torch import torch
from divprune.methods.base import Method
from divprune.methods.checks import checked_selection
from divprune.methods.item_context import ItemContext, Piece
from divprune.methods.merging import MergingMethod, checked_merge

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Kept:
    """What a method keeps: (k,) int64 token indices in pick order, and (k, d) what they become, None if they stay."""

    order: Tensor
    merged: Tensor | None


def keep_tokens(method: Method, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Kept:
    """Ask a method about tokens (M, d) that are all candidates; arguments as for `Method.select`.

    Raises:
        SelectionError: the method answers something else than it must.
    """
    with torch.no_grad():
        if not isinstance(method, MergingMethod):
            return Kept(checked_selection(method, visual_tokens, num_keep, context), None)
        merged = checked_merge(method, visual_tokens, num_keep, context)
    if context.project is None or context.patch_features is None:
        return Kept(merged.anchors, merged.tokens(visual_tokens))
    mixed = merged.tokens(context.patch_features, context.cls_features).to(visual_tokens.dtype)
    return Kept(merged.anchors, context.project(mixed))


def has_other_tokens(context: ItemContext) -> bool:
    """Tell whether some of the tokens come from no patch (image newline tokens)."""
    return context.has_patch is not None and not bool(context.has_patch.all())


def keep_patches(
    keep: Callable[[Tensor, ItemContext], Kept], visual_tokens: Tensor, context: ItemContext, num_wanted: int
) -> Kept:
    """Ask a method that reads the vision encoder about the tokens that come from a patch.

    Others (image newline tokens) are dropped, but for as many as there is room for when every patch is kept.

    Args:
        keep: asks about the patches' tokens (P, d), with their context.
        visual_tokens: (M, d) all tokens of the item.
        context: what is known of all tokens, `has_patch` among it.
        num_wanted: how many of the M tokens are to be kept in all.
    """
    has_patch = cast(torch.Tensor, context.has_patch)
    candidates, others = has_patch.nonzero().squeeze(1), (~has_patch).nonzero().squeeze(1)
    some = replace(context.at(candidates), grid=None, pieces=_without_newlines(context.pieces, len(candidates)))
    kept = keep(visual_tokens[candidates], some)
    others = others[: max(0, num_wanted - len(candidates))]
    merged = None if kept.merged is None else torch.cat([kept.merged, visual_tokens[others]])
    return Kept(torch.cat([candidates[kept.order], others]), merged)


def _without_newlines(pieces: tuple[Piece, ...] | None, num_patches: int) -> tuple[Piece, ...] | None:
    """Return the grids of an item's `num_patches` patches alone; None if they are not known."""
    if pieces is None or sum(piece.rows * piece.columns for piece in pieces) != num_patches:
        return None
    starts = accumulate((piece.rows * piece.columns for piece in pieces), initial=0)
    return tuple(
        Piece(start, piece.rows, piece.columns, piece.columns) for start, piece in zip(starts, pieces, strict=False)
    )
