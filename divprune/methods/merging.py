"""The shape of methods that merge: every kept token is a weighted sum of the item's tokens.

image -> visual tokens -> **method.merge** -> prompt -> LLM. Each merged token takes the place of one of the tokens, its
anchor. The method gives the weights and the integration applies them, to the tokens themselves or, where the paper
merges before the projector and the model's projector works on each patch alone, to what the projector reads.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from divprune.errors import SelectionError
from divprune.lazy_torch import torch
from divprune.methods.base import Method
from divprune.methods.checks import checked_picks, state_of
from divprune.methods.item_context import ItemContext

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merging method makes of one item's tokens.

    Attributes:
        weights: (k, M) float32: how much of each token is in each merged one.
        anchors: (k,) int64, ascending and distinct: whose place each merged token takes.
        cls_weights: (k, M) float32: how much of each token's `ItemContext.cls_features` is in each merged one, besides
            its patch features; None for nothing. Only where these are known and the integration can project them.
    """

    weights: Tensor
    anchors: Tensor
    cls_weights: Tensor | None = None

    def tokens(self, values: Tensor, cls_values: Tensor | None = None) -> Tensor:
        """Return the merged tokens (k, d) of `values` (M, d), in their dtype; computed in float32 at least.

        Args:
            values: (M, d) of the tokens.
            cls_values: (M, d) of their CLS tokens, which `cls_weights` are for.
        """
        precise = torch.promote_types(values.dtype, torch.float32)
        sums = self.weights.to(values.device, precise) @ values.to(precise)
        if self.cls_weights is not None and cls_values is not None:
            sums = sums + self.cls_weights.to(values.device, precise) @ cls_values.to(precise)
        return sums.to(values.dtype)


@dataclass(frozen=True)
class MergingMethod(Method):
    """A method that merges tokens.

    Attributes:
        merges: What it mixes in its paper: "patch_features", before the projector, or "visual_tokens", after it. Where
            the projector does not work on each patch alone, the visual tokens are mixed in any case.
    """

    merges: ClassVar[Literal["patch_features", "visual_tokens"]] = "visual_tokens"

    @abstractmethod
    def merge(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Merged:
        """Merge the tokens of one item; arguments as for `select`.

        Returns:
            `num_keep` merged tokens; at most so many if `count` is "at_most".
        """

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Return the anchors."""
        return self.merge(visual_tokens, num_keep, context).anchors


def checked_merge(method: MergingMethod, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Merged:
    """Ask a method what an item's tokens become, and check what it answers; arguments and result as for `merge`.

    Raises:
        SelectionError: It answers something else than `merge` must, or has changed the tokens.
    """
    before = state_of(visual_tokens)
    merged = method.merge(visual_tokens, num_keep, context)
    anchors = checked_picks(method, merged.anchors, num_keep, visual_tokens, before)
    expected = (len(anchors), len(visual_tokens))
    for weights in (merged.weights, *(() if merged.cls_weights is None else (merged.cls_weights,))):
        if weights.shape != expected or not bool(weights.isfinite().all()):
            shape = tuple(weights.shape)
            raise SelectionError(f"method {method.name!r} must return finite weights of shape {expected}, got {shape}")
    if merged.cls_weights is not None and (context.project is None or context.cls_features is None):
        raise SelectionError(f"method {method.name!r} must return cls_weights only where CLS features can be projected")
    return merged


def unmerged(total: int, device: torch.device) -> Merged:
    """Return all of `total` tokens as they are."""
    return Merged(torch.eye(total, device=device), torch.arange(total, device=device))


def merged(weights: Tensor, anchors: Tensor) -> Merged:
    """Return rows of `weights` (k, M) with their `anchors` (k,), put in the order of the anchors."""
    ascending = anchors.sort()
    return Merged(weights[ascending.indices].float(), ascending.values)
