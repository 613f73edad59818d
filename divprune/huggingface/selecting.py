"""Items -> groups that share a budget -> the method's selection -> each item's kept tokens in both orders.

The same for methods before the LLM and inside it; which k tokens stay is asked here and nowhere else.
"""

from dataclasses import dataclass, replace
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor

from divprune.budget import Budget
from divprune.config import PruningConfig, Scope
from divprune.errors import PruningError, SelectionError
from divprune.huggingface.encoding.encode import seconds_now
from divprune.huggingface.encoding.items import ItemSelection, VisualItem
from divprune.methods.base import ItemContext, Method, Piece
from divprune.methods.checks import checked_picks, state_of
from divprune.methods.merging import MergingMethod, checked_merge


@dataclass(frozen=True)
class _Group:
    """Tokens that compete for one budget: `tokens[i]` of item `items[i]`, as indices into what is left of the item.

    `total` counts the tokens that are gone, too; `budget` says how many of them stay, None if the method does.
    """

    items: list[int]
    tokens: list[Tensor]
    total: int
    budget: Budget | None


@dataclass(frozen=True)
class _Kept:
    """What a method keeps: (k,) int64 token indices in pick order, and (k, d) what they become, None if they stay."""

    order: Tensor
    merged: Tensor | None


def select_items(items: list[VisualItem], config: PruningConfig, layer: int = 0) -> list[ItemSelection]:
    """Select the kept tokens of every item.

    Args:
        items: the call's images and videos.
        config: how to prune; its `scope` says what a group is: an item, a frame of an item, or all items of a row.
        layer: the decoder layer that the tokens are about to enter; 0 before the LLM.

    Returns:
        One selection an item. Under `scope="sample"`, or by a schedule, an item may keep nothing.

    Raises:
        PruningError: the method needs something that is not known of these tokens.
        SelectionError: the method cannot choose from them, or answers something else than it must.
    """
    parts: list[list[_Kept]] = [[] for _ in items]
    seconds = [0.0] * len(items)
    budgets = _budgets(items, config)
    for number, group in enumerate(_groups(items, config.scope, budgets)):
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
    return [_item_selection(own, time) for own, time in zip(parts, seconds, strict=True)]


def _select(visual_tokens: Tensor, method: Method, context: ItemContext, group: _Group) -> _Kept:
    """Ask the method about tokens (M, d) that are all candidates."""
    _require(method, context)
    if group.budget is not None:
        stages = method.stages(group.budget.count(group.total), group.total)
        num_keep = min(dict(stages)[context.layer], len(visual_tokens))
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
    mixed = merged.tokens(context.patch_features).to(visual_tokens.dtype)
    return _Kept(merged.anchors, context.project(mixed))


def _select_patches(visual_tokens: Tensor, method: Method, context: ItemContext, group: _Group) -> _Kept:
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
    for need in sorted(method.needs_at(context.layer)):
        if getattr(context, need) is not None:
            continue
        if need in ("grid", "pieces"):
            form = "one (frames, height, width) grid" if need == "grid" else "whole grids"
            raise PruningError(
                f"method {method.name!r} needs tokens that form {form}; those of this {context.modality} do not, or "
                "their places are not known"
            )
        raise PruningError(f"method {method.name!r} needs {need}, which is not known of these tokens")


def _item_selection(parts: list[_Kept], seconds: float) -> ItemSelection:
    """Join what is kept of one item, one part a group."""
    order = torch.cat([part.order for part in parts])
    merged = [part.merged for part in parts if part.merged is not None]
    return ItemSelection(order, order.sort().values, seconds, torch.cat(merged) if merged else None)


def _visual_tokens(items: list[VisualItem], group: _Group) -> Tensor:
    """(M, d) tokens of a group, without a copy if it is one whole item."""
    if _is_whole_item(items, group):
        return items[group.items[0]].visual_tokens
    members = zip(group.items, group.tokens, strict=True)
    return torch.cat([items[item].visual_tokens[tokens] for item, tokens in members])


def _split(kept: _Kept, group: _Group) -> list[_Kept]:
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


def _is_whole_item(items: list[VisualItem], group: _Group) -> bool:
    return len(group.items) == 1 and len(group.tokens[0]) == len(items[group.items[0]].visual_tokens)


def _budgets(items: list[VisualItem], config: PruningConfig) -> list[Budget | None]:
    """Return how many tokens stay of each item."""
    if config.is_uniform:
        return [config.budget] * len(items)
    order = sorted(range(len(items)), key=lambda index: (items[index].row, int(items[index].placeholders[0])))
    budgets = dict(zip(order, config.budgets([items[index].modality for index in order]), strict=True))
    return [budgets[index] for index in range(len(items))]


def _groups(items: list[VisualItem], scope: Scope, budgets: list[Budget | None]) -> list[_Group]:
    every_token = [torch.arange(len(item.visual_tokens), device=item.visual_tokens.device) for item in items]
    if scope == "item":
        return [
            _Group([index], [tokens], len(items[index].placeholders), budgets[index])
            for index, tokens in enumerate(every_token)
        ]
    if scope == "frame":
        return [
            _Group([index], [tokens], total, budgets[index])
            for index, item in enumerate(items)
            for tokens, total in _frames(item)
        ]
    rows = sorted({item.row for item in items})
    # Within a row, in the order in which the items stand in the prompt.
    members = {row: [index for index, item in enumerate(items) if item.row == row] for row in rows}
    for indices in members.values():
        indices.sort(key=lambda index: int(items[index].placeholders[0]))
    return [
        _Group(
            indices,
            [every_token[index] for index in indices],
            sum(len(items[index].placeholders) for index in indices),
            budgets[indices[0]],
        )
        for indices in members.values()
    ]


def _frames(item: VisualItem) -> list[tuple[Tensor, int]]:
    """For each frame its tokens among those that are left, and how many it had."""
    if item.layout is None:
        raise ValueError("scope must be 'item' or 'sample' here, got 'frame': the frames of this input are not known")
    frame = item.layout.frame.to(item.visual_tokens.device)
    left = frame if item.left is None else frame[item.left]
    return [
        ((left == number).nonzero().squeeze(-1), int((frame == number).sum())) for number in sorted(set(frame.tolist()))
    ]


def _group_context(items: list[VisualItem], group: _Group, number: int, method: Method, layer: int) -> ItemContext:
    first, is_whole = items[group.items[0]], _is_whole_item(items, group)
    context = first.context
    if not is_whole:
        members = zip(group.items, group.tokens, strict=True)
        context = ItemContext.joined([items[item].context.at(tokens) for item, tokens in members])
    context = replace(context, modality=first.modality, index=number, layer=layer)
    if first.left is None and is_whole and (method.needs | method.reads) & {"grid", "pieces"}:
        grid = None if first.layout is None else first.layout.grid
        context = replace(context, grid=grid, pieces=first.pieces)
    return context
