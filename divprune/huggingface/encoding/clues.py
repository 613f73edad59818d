"""What a method may ask to know about an item besides its visual tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

TOKEN_AXES = {
    "has_patch": 0,
    "vision_attention": 1,
    "vision_keys": 1,
    "patch_features": 0,
    "attention": 1,
    "text_attention": 2,
    "visual_attention": 1,
    "keys": 1,
}
"""Which axis counts the tokens."""
NOT_OF_CONTEXT = {"has_patch", "project"}


@dataclass(frozen=True)
class Clues:
    """The fields of `ItemContext` that methods ask for, of one item or several; None where nobody asks.

    Fields that are not told here are those of `ItemContext`.

    Attributes:
        has_patch: (M,) bool, False at tokens that come from no patch of the picture (row breaks).
        vision_attention: (heads, M); zero where there is no patch, as in the next two.
        vision_keys: (heads, M, d_head).
        patch_features: (M, d_vision).
        project: (n, d_vision) -> (n, d), the model's projector, if it works on each patch alone.
    """

    has_patch: Tensor | None = None
    vision_attention: Tensor | None = None
    vision_keys: Tensor | None = None
    patch_features: Tensor | None = None
    text_embeddings: Tensor | None = None
    input_tokens: Tensor | None = None
    attention: Tensor | None = None
    text_attention: Tensor | None = None
    visual_attention: Tensor | None = None
    keys: Tensor | None = None
    text_keys: Tensor | None = None
    text_states: Tensor | None = None
    final_norm: Callable[[Tensor], Tensor] | None = None
    project: Callable[[Tensor], Tensor] | None = None

    def at(self, tokens: Tensor) -> "Clues":
        """The clues of some tokens (k,) int64."""
        taken = self._values()
        for name, axis in TOKEN_AXES.items():
            if taken[name] is not None:
                taken[name] = taken[name].index_select(axis, tokens.to(taken[name].device))
        return Clues(**taken)

    def of_context(self) -> dict[str, Any]:
        """The fields that `ItemContext` has too."""
        return {name: value for name, value in self._values().items() if name not in NOT_OF_CONTEXT}

    def _values(self) -> dict[str, Any]:
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}


def joined(parts: Sequence[Clues]) -> Clues:
    """The clues of several items, one after the other; what belongs to the prompt is the first one's."""
    if len(parts) == 1:
        return parts[0]
    values = parts[0]._values()
    for name, axis in TOKEN_AXES.items():
        if values[name] is not None:
            values[name] = torch.cat([getattr(part, name) for part in parts], dim=axis)
    return Clues(**values)
