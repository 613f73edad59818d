"""Groups that share a budget -> the method's selection of each -> each item's kept tokens in both orders.

The same for methods before the LLM and inside it; which k tokens stay is asked here and nowhere else.
"""

from dataclasses import dataclass, replace
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor

from divprune.config import Newlines, PruningConfig
from divprune.errors import PruningError, SelectionError
from divprune.huggingface.encoding.encode import seconds_now
from divprune.huggingface.encoding.items import Group, ItemSelection, VisualItem
from divprune.huggingface.groups import groups_of, newlines_on_top
from divprune.methods.base import Method, require_modality
from divprune.methods.checks import checked_picks, state_of
from divprune.methods.item_context import ItemContext, Piece
from divprune.methods.merging import MergingMethod, checked_merge


@dataclass(frozen=True)
class _Kept:
    """What a method keeps: (k,) int64 token indices in pick order, and (k, d) what they become, None if they stay."""

    order: Tensor
    merged: Tensor | None


def select_items(items: list[VisualItem], config: PruningConfig, layer: int = 0) -> list[ItemSelection]:
    """Select the kept tokens of every item.

    Args:
        items: the call's images and videos.
        config: how to prune; its `scope` says what a group is: an item, a frame or tile of one, or all items of a row.
        layer: the decoder layer that the tokens are about to enter; 0 before the LLM.

    Returns:
        One selection an item. Under `scope="sample"`, or by a schedule, an item may keep nothing.

    Raises:
        PruningError: the method needs something that is not known of these tokens.
        SelectionError: the method cannot choose from them, or answers something else than it must.
    """
    parts: list[list[_Kept]] = [[] for _ in items]
    seconds = [0.0] * len(items)
    is_plain = config.scope == "item" and config.newlines == "budget" and config.is_uniform
    for number, group in enumerate(_whole_items(items, config) if is_plain else groups_of(items, config)):
        visual_tokens = _visual_tokens(items, group)
        started = seconds_now(visual_tokens.device)
        kept = _Kept(group.tokens[0], None)
        if len(visual_tokens):
            context = _group_context(items, group, number, config.method, layer)
            has_others = context.has_patch is not None and not bool(context.has_patch.all())
            try:
                kept = (_select_patches if has_others else _select)(visual_tokens, config.method, context, group)
            except ValueError as error:
                raise SelectionError(str(error)) from error
        elapsed = seconds_now(visual_tokens.device) - started
        for item, part in zip(group.items, _split(kept, group), strict=True):
            parts[item].append(part)
            seconds[item] += elapsed / len(group.items)
    return [
        _item_selection(item, own, config.newlines, time) for item, own, time in zip(items, parts, seconds, strict=True)
    ]


def _whole_items(items: list[VisualItem], config: PruningConfig) -> list[Group]:
    """Return one group an item, of all its tokens: what is asked for by default."""
    return [
        Group(
            [index],
            [torch.arange(len(item.visual_tokens), device=item.visual_tokens.device)],
            len(item.placeholders),
            config.budget,
        )
        for index, item in enumerate(items)
    ]


def _select(visual_tokens: Tensor, method: Method, context: ItemContext, group: Group) -> _Kept:
    """Ask the method about tokens (M, d) that are all candidates."""
    require_modality(method, context.modality)
    if method.needs:
        _require(method, context)
    if group.budget is not None:
        num_keep = group.budget.count(group.total)
        if method.layer_needs:  # a method of two stages
            num_keep = dict(method.stages(num_keep, group.total))[context.layer]
        num_keep = min(num_keep, len(visual_tokens))
    elif method.takes_budget:
        num_keep = method.adaptive_count(visual_tokens, context)
    else:
        num_keep = min(dict(method.schedule(group.total))[context.layer], len(visual_tokens))
    with torch.no_grad():
        if not isinstance(method, MergingMethod):
            before = state_of(visual_tokens)
            picks = method.select(visual_tokens, num_keep, context)
            return _Kept(checked_picks(method, picks, num_keep, visual_tokens, before), None)
        merged = checked_merge(method, visual_tokens, num_keep, context)
    if context.project is None or context.patch_features is None:
        return _Kept(merged.anchors, merged.tokens(visual_tokens))
    mixed = merged.tokens(context.patch_features, context.cls_features).to(visual_tokens.dtype)
    return _Kept(merged.anchors, context.project(mixed))


def _select_patches(visual_tokens: Tensor, method: Method, context: ItemContext, group: Group) -> _Kept:
    """Ask a method that reads the vision encoder about the tokens that come from a patch.

    Others (image newline tokens) are dropped, but for as many as there is room for when every patch is kept.
    """
    has_patch = cast(Tensor, context.has_patch)
    candidates, others = has_patch.nonzero().squeeze(1), (~has_patch).nonzero().squeeze(1)
    some = replace(context.at(candidates), grid=None, pieces=_without_newlines(context.pieces, len(candidates)))
    kept = _select(visual_tokens[candidates], method, some, group)
    room = 0 if group.budget is None else max(0, group.budget.count(group.total) - len(candidates))
    merged = None if kept.merged is None else torch.cat([kept.merged, visual_tokens[others[:room]]])
    return _Kept(torch.cat([candidates[kept.order], others[:room]]), merged)


def _without_newlines(pieces: tuple[Piece, ...] | None, num_patches: int) -> tuple[Piece, ...] | None:
    """Return the grids of an item's `num_patches` patches alone; None if they are not known."""
    if pieces is None or sum(piece.rows * piece.columns for piece in pieces) != num_patches:
        return None
    starts = accumulate((piece.rows * piece.columns for piece in pieces), initial=0)
    return tuple(
        Piece(start, piece.rows, piece.columns, piece.columns) for start, piece in zip(starts, pieces, strict=False)
    )


def _require(method: Method, context: ItemContext) -> None:
    for need in sorted(method.layer_needs if context.layer and method.layer_needs else method.needs):
        if getattr(context, need) is not None:
            continue
        if need in ("grid", "pieces"):
            form = "one (frames, height, width) grid" if need == "grid" else "whole grids"
            raise PruningError(
                f"method {method.name!r} needs tokens that form {form}; those of this {context.modality} do not, or "
                "their places are not known"
            )
        raise PruningError(f"method {method.name!r} needs {need}, which is not known of these tokens")


def _item_selection(item: VisualItem, parts: list[_Kept], newlines: Newlines, seconds: float) -> ItemSelection:
    """Join what is kept of one item, one part a group, and the newline tokens that stay besides."""
    order = torch.cat([part.order for part in parts])
    merged = [part.merged for part in parts if part.merged is not None]
    if newlines != "budget":
        extra = newlines_on_top(item, order, newlines)
        order = torch.cat([order, extra])
        merged += [item.visual_tokens[extra]] if merged else []
    return ItemSelection(order, order.sort().values, seconds, torch.cat(merged) if merged else None)


def _visual_tokens(items: list[VisualItem], group: Group) -> Tensor:
    """(M, d) tokens of a group, without a copy if it is one whole item."""
    if _is_whole_item(items, group):
        return items[group.items[0]].visual_tokens
    members = zip(group.items, group.tokens, strict=True)
    return torch.cat([items[item].visual_tokens[tokens] for item, tokens in members])


def _split(kept: _Kept, group: Group) -> list[_Kept]:
    """Split what a group keeps into what each member keeps, as indices into its item, in pick order."""
    local = torch.cat(group.tokens)[kept.order]
    if len(group.items) == 1:
        return [_Kept(local, kept.merged)]
    sizes = torch.tensor([len(tokens) for tokens in group.tokens], device=local.device)
    owner = torch.arange(len(sizes), device=local.device).repeat_interleave(sizes)[kept.order]
    return [
        _Kept(local[owner == position], None if kept.merged is None else kept.merged[owner == position])
        for position in range(len(sizes))
    ]


def _is_whole_item(items: list[VisualItem], group: Group) -> bool:
    return len(group.items) == 1 and len(group.tokens[0]) == len(items[group.items[0]].visual_tokens)


def _group_context(items: list[VisualItem], group: Group, number: int, method: Method, layer: int) -> ItemContext:
    first, is_whole = items[group.items[0]], _is_whole_item(items, group)
    context = first.context
    if not is_whole:
        members = zip(group.items, group.tokens, strict=True)
        context = ItemContext.joined([items[item].context.at(tokens) for item, tokens in members])
    context = replace(context, modality=first.modality, index=number, layer=layer)
    if first.left is None and is_whole and (method.needs | method.reads) & {"grid", "pieces"}:
        grid = None if first.layout is None else first.layout.grid
        return replace(context, grid=grid, pieces=first.pieces)
    if first.left is None and group.piece is not None:
        rows, columns, stride = group.piece[1:]
        return replace(context, grid=(1, rows, columns) if columns == stride else None, pieces=(group.piece,))
    return context
