"""What methods need of the vision encoder, from the queries and keys of one of its layers.

image -> **a layer of the vision encoder** -> projector -> visual tokens -> selection. Whoever runs the encoder hands
over what its layers compute; what `ItemContext` holds is made of it here, the same in every engine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from divprune.lazy_torch import torch
from divprune.methods.base import Method
from divprune.methods.item_context import Need

if TYPE_CHECKING:
    from torch import Tensor

EARLY: Need = "early_vision_attention"
VISION_NEEDS: frozenset[Need] = frozenset(
    {"vision_attention", "vision_keys", EARLY, "patch_features", "cls_features", "clip_embeddings"}
)
"""The needs that are met by capturing in the vision encoder."""
LAYER_NEEDS: tuple[frozenset[Need], ...] = (frozenset({"vision_attention", "vision_keys"}), frozenset({EARLY}))
"""What comes from layer `Method.vision_layer`, and what from `Method.early_vision_layer`."""
_WITHOUT_HEADS: frozenset[Need] = frozenset({"patch_features", "cls_features", "clip_embeddings"})
READ_AT_ONCE = 2**26
"""Largest number of attention probabilities computed in one piece."""


@dataclass
class CapturedVision:
    """What was captured in one pass of the encoder: pieces along the patches (P), CLS tokens left out.

    Attributes:
        pieces: by what they are of: "vision_attention" and "early_vision_attention" (heads, P), "vision_keys"
            (heads, P, d_head), "patch_features", what the projector read, (P or M, d), "cls_features" (tiles, d),
            "clip_embeddings", what the last layer gave, (P, d).
    """

    pieces: dict[Need, list[Tensor]] = field(default_factory=dict)

    def add(self, need: Need, piece: Tensor) -> None:
        """Take one more piece."""
        self.pieces.setdefault(need, []).append(piece)

    def add_layer(
        self, method: Method, needs: frozenset[Need], query: Tensor, key: Tensor, scale: float, has_cls_token: bool
    ) -> None:
        """Take what a method needs of one layer.

        Args:
            method: the method.
            needs: which of its needs the layer meets, one of `LAYER_NEEDS` at most.
            query: (n images, heads, tokens, d_head) before they are scaled.
            key: (n images, heads, tokens, d_head).
            scale: of the products of queries and keys in this layer.
            has_cls_token: whether the first token of each image stands for the whole of it.
        """
        query, key, first = query.float(), key.float(), int(has_cls_token)
        if "vision_keys" in needs:
            self.add("vision_keys", key[:, :, first:].transpose(0, 1).flatten(1, 2))
        if method.joins_heads:
            query, key = (part.transpose(1, 2).flatten(2).unsqueeze(1) for part in (query, key))
            scale = query.shape[-1] ** -0.5
        queries = query[:, :, :1] if has_cls_token and method.attending == "cls" else query
        for need in needs - {"vision_keys"}:
            received = received_attention(queries * scale, key)
            self.add(need, received[:, :, first:].transpose(0, 1).flatten(1))

    def on(self, device: torch.device) -> dict[Need, Tensor]:
        """Return what was captured, joined along the patches, float32."""
        return {need: self._joined(need).to(device, torch.float32) for need in self.pieces}

    def at(self, patches: Tensor) -> CapturedVision:
        """Return what was captured of some patches, (n,) int64; what has none (CLS features) as it is."""
        return CapturedVision(
            {
                need: pieces if need == "cls_features" else [self._joined(need).index_select(_axis(need), patches)]
                for need, pieces in self.pieces.items()
            }
        )

    def _joined(self, need: Need) -> Tensor:
        return torch.cat(self.pieces[need], dim=_axis(need))


def _axis(need: Need) -> int:
    """Return the axis of the patches."""
    return 0 if need in _WITHOUT_HEADS else 1


def received_attention(queries: Tensor, keys: Tensor) -> Tensor:
    """Attention (n, heads, N) that N keys (n, heads, N, d) get from scaled queries (n, heads, q, d) on average."""
    rows = max(1, READ_AT_ONCE // (keys.shape[0] * keys.shape[1] * keys.shape[2]))
    total = sum((part @ keys.mT).softmax(dim=-1).sum(dim=-2) for part in queries.split(rows, dim=-2))
    return torch.as_tensor(total) / queries.shape[-2]
