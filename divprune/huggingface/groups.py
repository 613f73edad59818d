"""Items -> the groups of tokens that share a budget, as `scope` and `newlines` say, and the newline tokens on top.

image -> visual tokens -> **groups** -> selection of each -> prompt -> LLM. Asked by `selecting.select_items` alone.
"""

import torch
from torch import Tensor

from divprune.budget import Budget, equal_shares
from divprune.config import Newlines, PruningConfig, Scope, require_scope
from divprune.errors import SelectionError
from divprune.huggingface.encoding.items import Group, VisualItem
from divprune.huggingface.families.token_layout import Layout, tile_piece

NO_PART = -1


def groups_of(items: list[VisualItem], config: PruningConfig) -> list[Group]:
    """Return the groups, each item in at least one.

    Args:
        items: the call's images and videos.
        config: how to prune; its `scope` says what a group is, its `newlines` whether newline tokens are in any.

    Raises:
        SelectionError: the frames, tiles or newline tokens of an item are not known.
    """
    budgets = _budgets(items, config)
    if config.scope != "sample":
        return [
            group
            for index, item in enumerate(items)
            for group in _item_groups(index, item, config.scope, config.newlines, budgets[index])
        ]
    rows = sorted({item.row for item in items})
    # Within a row, in the order in which the items stand in the prompt.
    members = {row: [index for index, item in enumerate(items) if item.row == row] for row in rows}
    for indices in members.values():
        indices.sort(key=lambda index: int(items[index].placeholders[0]))
    whole = [_whole_item(index, item, config.newlines, budgets[index]) for index, item in enumerate(items)]
    return [
        Group(
            indices,
            [whole[index].tokens[0] for index in indices],
            sum(whole[index].total for index in indices),
            budgets[indices[0]],
        )
        for indices in members.values()
    ]


def newlines_on_top(item: VisualItem, kept: Tensor, newlines: Newlines) -> Tensor:
    """Return the image newline tokens that stay besides the kept tokens.

    Args:
        item: the image or video.
        kept: (k,) int64 indices of the kept tokens into what is left of the item.
        newlines: "keep" for all, "rows" for those whose row keeps a token, "budget" for none.

    Returns:
        (n,) int64 such indices, ascending.
    """
    if newlines == "budget":
        return kept[:0]
    layout = _telling_newlines(item, newlines)
    stays = _left(item, layout.newlines)
    if newlines == "rows" and layout.newline_row is not None:
        row = _left(item, layout.newline_row)
        stays = stays & torch.isin(row, row[kept.cpu()])
    return stays.nonzero().squeeze(1).to(kept.device)


def _budgets(items: list[VisualItem], config: PruningConfig) -> list[Budget | None]:
    """Return how many tokens stay of each item."""
    if config.is_uniform:
        return [config.budget] * len(items)
    order = sorted(range(len(items)), key=lambda index: (items[index].row, int(items[index].placeholders[0])))
    budgets = dict(zip(order, config.budgets([items[index].modality for index in order]), strict=True))
    return [budgets[index] for index in range(len(items))]


def _whole_item(index: int, item: VisualItem, newlines: Newlines, budget: Budget | None) -> Group:
    """Return the group of all tokens of an item that compete."""
    device = item.visual_tokens.device
    if newlines == "budget":
        tokens, total = torch.arange(len(item.visual_tokens), device=device), len(item.placeholders)
    else:
        competes = ~_telling_newlines(item, newlines).newlines
        tokens, total = _left(item, competes).nonzero().squeeze(1).to(device), int(competes.sum())
    return Group([index], [tokens], total, budget)


def _item_groups(index: int, item: VisualItem, scope: Scope, newlines: Newlines, budget: Budget | None) -> list[Group]:
    """Return the groups of one item: one, one a frame, or one a tile."""
    if scope == "item":
        return [_whole_item(index, item, newlines, budget)]
    part = _frames(item) if scope == "frame" else _tiles(item)
    if newlines != "budget":
        part = part.masked_fill(_telling_newlines(item, newlines).newlines, NO_PART)
    numbers, sizes = part[part != NO_PART].unique(return_counts=True)
    totals: list[int] = sizes.tolist()
    budgets = [budget] * len(totals)
    if scope == "tile" and budget is not None and budget.keep_ratio is not None:
        # Where there are more tiles than tokens to keep, the last ones keep nothing.
        shares = equal_shares(budget.count(sum(totals)), totals)
        budgets = [Budget(num_keep=share) for share in shares if share]
    left = _left(item, part).to(item.visual_tokens.device)
    return [
        Group(
            [index],
            [(left == number).nonzero().squeeze(1)],
            total,
            each,
            tile_piece(item.layout, (part == number).nonzero().squeeze(1)) if scope == "tile" else None,
        )
        for number, total, each in zip(numbers.tolist(), totals, budgets, strict=False)
    ]


def _telling_newlines(item: VisualItem, newlines: Newlines) -> Layout:
    """Return the layout of an item, which tells newline tokens from others."""
    return _known(item, f"newlines must be 'budget' here, got {newlines!r}: the newline tokens of this input")


def _frames(item: VisualItem) -> Tensor:
    """(M,) int64 the frame of each token."""
    return _known(item, "scope must be 'item' or 'sample' here, got 'frame': the frames of this input").frame


def _tiles(item: VisualItem) -> Tensor:
    """(M,) int64 the tile of each token."""
    total = len(item.placeholders)
    try:
        require_scope("tile", item.modality)
    except ValueError as error:
        raise SelectionError(str(error)) from None
    if item.layout is None and item.tile_size:
        return torch.arange(total) // item.tile_size
    layout = _known(item, "scope must be 'item' or 'sample' here, got 'tile': the tiles of this input")
    return torch.zeros(total, dtype=torch.int64) if layout.tile is None else layout.tile


def _known(item: VisualItem, message: str) -> Layout:
    """Return the layout of an item; if there is none, that is an error."""
    if item.layout is None:
        raise SelectionError(f"{message} are not known")
    return item.layout


def _left(item: VisualItem, values: Tensor) -> Tensor:
    """Values of an item's tokens (M,) -> those of the tokens that are left."""
    return values if item.left is None else values[item.left.to(values.device)]
