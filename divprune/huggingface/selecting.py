"""Items -> groups that share a budget -> the method's picks -> each item's kept tokens in both orders."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from divprune.budget import Budget
from divprune.huggingface.asking import Choice, ask
from divprune.huggingface.encoding.clues import Clues, joined
from divprune.huggingface.encoding.encode import VisualItem, seconds_now
from divprune.methods.base import ItemContext, Method

Scope = Literal["item", "frame", "sample"]


@dataclass(frozen=True)
class Picks:
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


@dataclass(frozen=True)
class _Group:
    """Tokens that compete for one budget: `tokens[i]` of item `items[i]`, as indices into what is left of the item.

    `total` counts the tokens that are gone, too.
    """

    items: list[int]
    tokens: list[Tensor]
    total: int


def choose(items: list[VisualItem], method: Method, budget: Budget | None, scope: Scope, layer: int = 0) -> list[Picks]:
    """Chooses the kept tokens of every item.

    Args:
        items: the call's images and videos.
        method: the pruning method.
        budget: how many to keep of a group's tokens; None leaves that to the method's schedule.
        scope: what a group is: an item, a frame of an item, or all items of a row.
        layer: the decoder layer that the tokens are about to enter; 0 before the language model.

    Returns:
        One `Picks` an item. Under `scope="sample"`, or by a schedule, an item may keep nothing.
    """
    parts: list[list[Choice]] = [[] for _ in items]
    seconds = [0.0] * len(items)
    for number, group in enumerate(_groups(items, scope)):
        visual_tokens = _visual_tokens(items, group)
        started = seconds_now(visual_tokens.device)
        choice = Choice(group.tokens[0], None)
        if len(visual_tokens):
            context = _context(items, group, number, layer)
            choice = ask(visual_tokens, method, budget, context, _clues(items, group), group.total)
        elapsed = seconds_now(visual_tokens.device) - started
        for item, part in zip(group.items, _split(choice, group), strict=True):
            parts[item].append(part)
            seconds[item] += elapsed / len(group.items)
    return [_picks(own, time) for own, time in zip(parts, seconds, strict=True)]


def _picks(parts: list[Choice], seconds: float) -> Picks:
    """What was chosen of one item, one part a group."""
    order = torch.cat([part.order for part in parts])
    merged = [part.merged for part in parts if part.merged is not None]
    return Picks(order, order.sort().values, seconds, torch.cat(merged) if merged else None)


def _visual_tokens(items: list[VisualItem], group: _Group) -> Tensor:
    """(M, d) tokens of a group, without a copy if it is one whole item."""
    if _is_whole_item(items, group):
        return items[group.items[0]].visual_tokens
    members = zip(group.items, group.tokens, strict=True)
    return torch.cat([items[item].visual_tokens[tokens] for item, tokens in members])


def _split(choice: Choice, group: _Group) -> list[Choice]:
    """A group's choice -> each member's, as indices into its item, in pick order."""
    local = torch.cat(group.tokens)[choice.order]
    if len(group.items) == 1:
        return [Choice(local, choice.merged)]
    sizes = torch.tensor([len(tokens) for tokens in group.tokens], device=local.device)
    owner = torch.arange(len(sizes), device=local.device).repeat_interleave(sizes)[choice.order]
    return [
        Choice(local[owner == position], None if choice.merged is None else choice.merged[owner == position])
        for position in range(len(sizes))
    ]


def _is_whole_item(items: list[VisualItem], group: _Group) -> bool:
    return len(group.items) == 1 and len(group.tokens[0]) == len(items[group.items[0]].visual_tokens)


def _groups(items: list[VisualItem], scope: Scope) -> list[_Group]:
    every_token = [torch.arange(len(item.visual_tokens), device=item.visual_tokens.device) for item in items]
    if scope == "item":
        return [_Group([index], [tokens], len(items[index].columns)) for index, tokens in enumerate(every_token)]
    if scope == "frame":
        return [_Group([index], [tokens], total) for index, item in enumerate(items) for tokens, total in _frames(item)]
    rows = sorted({item.row for item in items})
    # Within a row, in the order in which the items stand in the prompt.
    members = {row: [index for index, item in enumerate(items) if item.row == row] for row in rows}
    for indices in members.values():
        indices.sort(key=lambda index: int(items[index].columns[0]))
    return [
        _Group(indices, [every_token[index] for index in indices], sum(len(items[index].columns) for index in indices))
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


def _context(items: list[VisualItem], group: _Group, number: int, layer: int) -> ItemContext:
    first = items[group.items[0]]
    is_whole = first.left is None and _is_whole_item(items, group)
    return ItemContext(
        kind=first.kind,
        index=number,
        grid=first.layout.grid if first.layout is not None and is_whole else None,
        pieces=first.pieces if is_whole else None,
        layer=layer,
    )


def _clues(items: list[VisualItem], group: _Group) -> Clues | None:
    parts = [(items[item].clues, tokens) for item, tokens in zip(group.items, group.tokens, strict=True)]
    known = [clues.at(tokens) for clues, tokens in parts if clues is not None]
    return joined(known) if known else None
