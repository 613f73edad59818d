"""Groups that share a budget -> the method's selection of each -> each item's kept tokens in both orders.

The same for methods before the LLM and inside it; which k tokens stay is asked here and nowhere else.
"""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from divprune.config import Newlines, PruningConfig
from divprune.errors import PruningError, SelectionError
from divprune.huggingface.encoding.encode import seconds_now
from divprune.huggingface.encoding.items import Group, ItemSelection, VisualItem
from divprune.huggingface.groups import groups_of, newlines_on_top
from divprune.methods.base import Method, require_modality
from divprune.methods.item_context import ItemContext
from divprune.methods.kept_tokens import Kept, has_other_tokens, keep_patches, keep_tokens


def select_items(items: list[VisualItem], config: PruningConfig, layer: int = 0) -> list[ItemSelection]:
    """Select the kept tokens of every item.

    Args:
        items: the call's images and videos.
        config: how to prune; its `scope` says what a group is: an item, a frame or tile of one, or all items of a row.
        layer: the decoder layer that the tokens are about to enter; 0 before the LLM.

    Returns:
        One selection an item, from the tokens that were encoded. Under `scope="sample"`, or by a schedule, an item may
        keep nothing.

    Raises:
        PruningError: the method needs something that is not known of these tokens.
        SelectionError: the method cannot choose from them, or answers something else than it must.
    """
    selections = _select_candidates([item.candidates for item in items], config, layer)
    return [selection.among_all(item) for item, selection in zip(items, selections, strict=True)]


def _select_candidates(items: list[VisualItem], config: PruningConfig, layer: int) -> list[ItemSelection]:
    parts: list[list[Kept]] = [[] for _ in items]
    seconds = [0.0] * len(items)
    is_plain = config.scope == "item" and config.newlines == "budget" and config.is_uniform
    for number, group in enumerate(_whole_items(items, config) if is_plain else groups_of(items, config)):
        visual_tokens = _visual_tokens(items, group)
        started = seconds_now(visual_tokens.device)
        kept = Kept(group.tokens[0], None)
        if len(visual_tokens):
            context = _group_context(items, group, number, config.method, layer)
            select = partial(_select, config.method, group)
            try:
                if has_other_tokens(context):
                    num_wanted = 0 if group.budget is None else group.budget.count(group.total)
                    kept = keep_patches(select, visual_tokens, context, num_wanted)
                else:
                    kept = select(visual_tokens, context)
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


def _select(method: Method, group: Group, visual_tokens: Tensor, context: ItemContext) -> Kept:
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
    return keep_tokens(method, visual_tokens, num_keep, context)


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


def _item_selection(item: VisualItem, parts: list[Kept], newlines: Newlines, seconds: float) -> ItemSelection:
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


def _split(kept: Kept, group: Group) -> list[Kept]:
    """Split what a group keeps into what each member keeps, as indices into its item, in pick order."""
    local = torch.cat(group.tokens)[kept.order]
    if len(group.items) == 1:
        return [Kept(local, kept.merged)]
    sizes = torch.tensor([len(tokens) for tokens in group.tokens], device=local.device)
    owner = torch.arange(len(sizes), device=local.device).repeat_interleave(sizes)[kept.order]
    return [
        Kept(local[owner == position], None if kept.merged is None else kept.merged[owner == position])
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
    if first.left is None and not first.is_part and group.piece is not None:
        rows, columns, stride = group.piece[1:]
        return replace(context, grid=(1, rows, columns) if columns == stride else None, pieces=(group.piece,))
    return context
