"""What a method answers is checked before anything is pruned by it, on every way into a model."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING

from divprune.errors import SelectionError
from divprune.lazy_torch import torch
from divprune.methods.base import Method
from divprune.methods.item_context import ItemContext

if TYPE_CHECKING:
    from torch import Tensor


def checked_selection(method: Method, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
    """Ask a method which tokens of an item stay, and check what it answers; arguments and result as for `select`.

    Raises:
        SelectionError: see `checked_picks`.
    """
    before = state_of(visual_tokens)
    return checked_picks(method, method.select(visual_tokens, num_keep, context), num_keep, visual_tokens, before)


def state_of(visual_tokens: Tensor) -> float:
    """Return a number that changes when tokens are written to."""
    # Tensors of the inference mode count no versions.
    return float(visual_tokens.float().sum()) if visual_tokens.is_inference() else visual_tokens._version


def checked_picks(method: Method, picks: Tensor, num_keep: int, visual_tokens: Tensor, before: float) -> Tensor:
    """Check which tokens a method keeps, and return it.

    Args:
        method: The method.
        picks: What it returned.
        num_keep: How many it was asked for.
        visual_tokens: (M, d) what it was shown.
        before: Their `state_of` before it was asked.

    Raises:
        SelectionError: `picks` is no (num_keep,) int64 tensor of distinct indices, or the tokens have been changed.
    """
    total, after, problem = len(visual_tokens), state_of(visual_tokens), ""
    if not isinstance(picks, torch.Tensor) or picks.dtype != torch.int64 or picks.ndim != 1:
        shape = f" {picks.dtype} of shape {tuple(picks.shape)}" if isinstance(picks, torch.Tensor) else ""
        problem = f"return one (k,) int64 tensor, got {type(picks).__name__}{shape}"
    elif len(picks) != num_keep and not (method.may_keep_fewer and 0 < len(picks) < num_keep):
        problem = f"return {'at most ' if method.may_keep_fewer else ''}{num_keep} indices, got {len(picks)}"
    elif len(picks) and not 0 <= int(picks.min()) <= int(picks.max()) < total:
        problem = f"return indices from 0 to {total - 1}, got {int(picks.min())} to {int(picks.max())}"
    elif len(picks.unique()) != len(picks):
        problem = "return distinct indices, got some of them twice"
    elif before != after and not (isnan(before) and isnan(after)):
        problem = "not write to visual_tokens; let it work on a copy"
    if problem:
        raise SelectionError(f"method {method.name!r} must {problem}")
    return picks
