"""How much each token matters, by the vision encoder or by the question; shared by many methods."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from divprune.lazy_torch import torch
from divprune.methods.item_context import ItemContext, given
from divprune.selection.distances import unit_rows

if TYPE_CHECKING:
    from torch import Tensor


def importance(context: ItemContext, method: str) -> Tensor:
    """Return (M,) `ItemContext.vision_attention` on average over the heads."""
    return given(context, "vision_attention", method).mean(dim=0)


def text_similarity(visual_tokens: Tensor, context: ItemContext, method: str) -> Tensor:
    """Return (N, M) cosine similarities of the text's embeddings and the visual tokens.

    The stand-in for CLIP's text encoder, which multimodal models do not carry: both live in the language model's space.
    """
    text = given(context, "text_embeddings", method).to(visual_tokens.device)
    text, tokens = unit_rows(text), unit_rows(visual_tokens)
    return text.to(tokens.dtype) @ tokens.mT


def clip_irrelevance(context: ItemContext, method: str) -> Tensor:
    """Return (M,) minus the mean cosine similarity of each token's patches and the text's segments in CLIP's space."""
    tokens = unit_rows(given(context, "clip_embeddings", method))
    text = unit_rows(given(context, "clip_text", method).to(tokens.device))
    return -(text @ tokens.mT).mean(dim=0)


def ranked(scores: Tensor) -> Tensor:
    """Return the indices of scores (M,) from the highest down; ties go to the lowest index."""
    return scores.sort(descending=True, stable=True).indices


def picked_by(mask: Tensor) -> Tensor:
    """Return the ascending indices of the True entries of a mask (M,)."""
    return torch.nonzero(mask).squeeze(1)


def checked_number(name: str, value: float, lowest: float, highest: float = float("inf")) -> None:
    """Check a parameter.

    Raises:
        ValueError: It is not between `lowest` and `highest`, or not finite.
    """
    if not (isfinite(value) and lowest <= value <= highest):
        bound = f"at least {lowest:g}" if highest == float("inf") else f"between {lowest:g} and {highest:g}"
        raise ValueError(f"{name} must be {bound}, got {value!r}")
