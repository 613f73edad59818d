"""Asking a method about one group of tokens: how many, which ones, and what they become."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from divprune.budget import Budget
from divprune.errors import PruningError
from divprune.huggingface.encoding.clues import Clues
from divprune.methods.base import ItemContext, Method
from divprune.methods.merging import MergingMethod


@dataclass(frozen=True)
class Choice:
    """What a method chose among the tokens of a group.

    Attributes:
        order: (k,) int64 in pick order.
        merged: (k, d) what these tokens become; None if they stay what they are.
    """

    order: Tensor
    merged: Tensor | None


def ask(
    visual_tokens: Tensor, method: Method, budget: Budget | None, context: ItemContext, clues: Clues | None, total: int
) -> Choice:
    """Asks a method to choose among the tokens (M, d) of a group.

    A method that reads the vision encoder is asked about the tokens that come from a patch. Others (row breaks) are
    dropped, but for as many as there is room for when every patch is kept.

    Args:
        visual_tokens: (M, d), at least one.
        method: the method.
        budget: how many to keep, None if the method says so itself.
        context: what is known of the tokens as a group.
        clues: what is known of each token.
        total: how many tokens the group had before any was dropped; the budget is of these.

    Raises:
        PruningError: the method needs something that is not known of these tokens.
    """
    if clues is None or clues.has_patch is None or bool(clues.has_patch.all()):
        return _answer(visual_tokens, method, budget, context, clues or Clues(), total)
    candidates, others = clues.has_patch.nonzero().squeeze(1), (~clues.has_patch).nonzero().squeeze(1)
    some = replace(context, grid=None, pieces=None)
    choice = _answer(visual_tokens[candidates], method, budget, some, clues.at(candidates), total)
    room = 0 if budget is None else max(0, budget.count(total) - len(candidates))
    merged = None if choice.merged is None else torch.cat([choice.merged, visual_tokens[others[:room]]])
    return Choice(torch.cat([candidates[choice.order], others[:room]]), merged)


def _answer(
    visual_tokens: Tensor, method: Method, budget: Budget | None, context: ItemContext, clues: Clues, total: int
) -> Choice:
    """Asks about tokens that are all candidates; the budget is of `total` tokens."""
    context = replace(context, **clues.of_context())
    _require(method, context)
    if budget is not None:
        count = min(budget.count(total), len(visual_tokens))
    elif method.count == "adaptive":
        count = method.adaptive_count(len(visual_tokens), context)
    else:
        count = min(dict(method.schedule(total))[context.layer], len(visual_tokens))
    with torch.no_grad():
        if not isinstance(method, MergingMethod):
            return Choice(method.select(visual_tokens, count, context), None)
        merged = method.merge(visual_tokens, count, context)
    if clues.project is None or context.patch_features is None:
        return Choice(merged.anchors, merged.tokens(visual_tokens))
    mixed = merged.tokens(context.patch_features).to(visual_tokens.dtype)
    return Choice(merged.anchors, clues.project(mixed))


def _require(method: Method, context: ItemContext) -> None:
    for need in sorted(method.needs):
        if getattr(context, need) is not None:
            continue
        if need in ("grid", "pieces"):
            form = "one (frames, height, width) grid" if need == "grid" else "whole grids"
            raise PruningError(
                f"method {method.name!r} needs tokens that form {form}; those of this {context.kind} do not, or their "
                "places are not known"
            )
        raise PruningError(f"method {method.name!r} needs {need}, which is not known of these tokens")
