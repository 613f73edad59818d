"""DART: a few pivots, and the tokens that resemble them least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.lazy_torch import torch
from divprune.methods.base import Fidelity, Method, Paper, checked_layer
from divprune.methods.item_context import ItemContext, Need, given
from divprune.methods.scores import picked_by, ranked
from divprune.selection.distances import unit_rows

if TYPE_CHECKING:
    from torch import Tensor

PIVOTS = 4
"""Visual ones, and as many of the text."""


@dataclass(frozen=True)
class DART(Method):
    """Least like a few pivot tokens, after the first decoder layers.

    All tokens run through decoder layers 0 to K - 1. Pivots are the 4 visual and the 4 text tokens with the largest l1
    norm of their keys (after rotary embedding, all heads together) in layer K - 1. Visual pivots stay; then each pivot
    in turn, visual ones first and larger norms first, takes the remaining visual tokens whose hidden states, behind
    the model's last norm, have the lowest cosine similarity with its own. They stay from layer K on, at their own
    positions.

    Deviation, so that exactly as many stay as are asked for: the paper's pivots take int(keep / 8) tokens each, visual
    pivots not counted; here the tokens that are to stay besides the visual pivots are dealt out evenly, one more to the
    first pivots if they do not divide. Of fewer than 4 tokens all are visual pivots; a text of fewer than 4 tokens
    (none, in a prompt of images alone) gives as many pivots as it has.

    Z. Wen, Y. Gao, S. Wang, J. Zhang, Q. Zhang, W. Li, C. He, L. Zhang, "Stop Looking for Important Tokens in
    Multimodal Language Models: Duplication Matters More", EMNLP 2025, https://arxiv.org/abs/2502.11494

    Attributes:
        layer: K, at least 1; the default is that of the authors' script (LightCompress runs it with 5).
    """

    name: ClassVar[str] = "dart"
    acts: ClassVar[str] = "inside the LLM"
    paper: ClassVar[Paper | None] = Paper(
        title="Stop Looking for Important Tokens in Multimodal Language Models: Duplication Matters More",
        year=2025,
        url="https://arxiv.org/abs/2502.11494",
        citation="Wen, Gao, Wang, Zhang, Zhang, Li, He, Zhang, EMNLP 2025",
    )
    fidelity: ClassVar[Fidelity] = "documented"
    needs: ClassVar[frozenset[Need]] = frozenset({"keys", "text_keys", "text_states", "final_norm"})
    layer: int = 2

    def __post_init__(self) -> None:
        """Check the layer: there must be one before it, whose keys show the pivots."""
        checked_layer(self.layer, 1)

    @property
    def layers(self) -> tuple[int, ...]:
        return (self.layer,)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select visual pivots, then what each pivot takes."""
        norm = context.final_norm
        if norm is None:
            raise ValueError(f"context.final_norm must be given to method {self.name!r}, got None")
        own = pivots(given(context, "keys", self.name))[:num_keep].to(visual_tokens.device)
        text = given(context, "text_states", self.name)[pivots(given(context, "text_keys", self.name))]
        states = unit_rows(norm(visual_tokens).to(visual_tokens.device))
        asking = torch.cat([states[own], unit_rows(norm(text)).to(states)])
        left = torch.ones(len(states), dtype=torch.bool, device=states.device).index_fill(0, own, False)
        order = [own]
        for pivot, share in zip(asking, shares(num_keep - len(own), len(asking)), strict=True):
            candidates = picked_by(left)
            order.append(candidates[ranked(-(states[candidates] @ pivot))[:share]])
            left[order[-1]] = False
        return torch.cat(order)


def pivots(keys: Tensor) -> Tensor:
    """Return the indices of the tokens with the largest keys (key heads, n, d_head), at most 4, the largest first."""
    return ranked(keys.abs().sum(dim=(0, 2)))[:PIVOTS]


def shares(total: int, count: int) -> list[int]:
    """Deal out `total` to `count`, as evenly as can be; the first get one more."""
    return [total // count + (place < total % count) for place in range(count)]
