"""Capture attention and keys of layers of the vision encoder while it runs, and what the projector reads.

Nothing is computed that no method asks for, and every other layer keeps its own attention.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from divprune.errors import PruningError
from divprune.huggingface.encoding.attention_capture import AttentionCapture
from divprune.huggingface.families.vision_towers import Tower
from divprune.methods.base import Method, Need

EARLY: Need = "early_vision_attention"
VISION_NEEDS: frozenset[Need] = frozenset({"vision_attention", "vision_keys", EARLY, "patch_features"})
"""The needs that are met by capturing in the vision encoder."""
READ_AT_ONCE = 2**26
"""Largest number of attention probabilities computed in one piece."""


@dataclass
class CapturedVision:
    """What was captured in one pass of the encoder: pieces along the patches (P), CLS tokens left out.

    Attributes:
        attention: (heads, P) pieces.
        early_attention: (heads, P) pieces of an earlier layer.
        keys: (heads, P, d_head) pieces.
        features: what the projector read, (P or M, d).
    """

    attention: list[Tensor] = field(default_factory=list)
    early_attention: list[Tensor] = field(default_factory=list)
    keys: list[Tensor] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)

    def on(self, device: torch.device) -> dict[Need, Tensor]:
        """Attention (heads, P), keys (heads, P, d_head) and features (P or M, d), float32, what of it was captured."""
        of_patches = {"vision_attention": self.attention, EARLY: self.early_attention, "vision_keys": self.keys}
        captured = {name: torch.cat(pieces, dim=1).to(device) for name, pieces in of_patches.items() if pieces}
        if self.features:
            captured["patch_features"] = torch.cat(self.features).to(device, torch.float32)
        return captured


class VisionCapture(AttentionCapture):
    """Captures attention and keys of one attention module of a vision encoder."""

    def __init__(
        self,
        attention: nn.Module,
        method: Method,
        has_cls_token: bool,
        passes: list[CapturedVision],
        is_early: bool = False,
    ) -> None:
        """Start capturing, into the last of `passes`; of an earlier layer only its attention."""
        self._method = method
        self._has_cls_token = has_cls_token
        self._passes = passes
        self._is_early = is_early
        super().__init__(attention)

    def capture(self, query: Tensor, key: Tensor, mask: Tensor | None, options: Mapping[str, Any]) -> None:
        """Keep what the method needs of queries and keys (n images, heads, tokens, d_head)."""
        if mask is not None:
            raise PruningError(f"method {self._method.name!r} cannot read a vision encoder that masks its attention")
        query, key = query.float(), key.float()
        captured, first = self._passes[-1], int(self._has_cls_token)
        if self._is_early:
            captured.early_attention.append(self._attention_of(query, key, first, options))
            return
        if "vision_keys" in self._method.needs:
            captured.keys.append(key[:, :, first:].transpose(0, 1).flatten(1, 2))
        if "vision_attention" in self._method.needs:
            captured.attention.append(self._attention_of(query, key, first, options))

    def _attention_of(self, query: Tensor, key: Tensor, first: int, options: Mapping[str, Any]) -> Tensor:
        """(heads, n * P) attention that the patches, from token `first` on, receive in n images."""
        scale = options.get("scaling") or query.shape[-1] ** -0.5
        if self._method.joins_heads:
            query, key = (part.transpose(1, 2).flatten(2).unsqueeze(1) for part in (query, key))
            scale = query.shape[-1] ** -0.5
        of_cls = self._has_cls_token and not self._method.asks_all_patches
        queries = query[:, :, :1] if of_cls else query[:, :, first:]
        return received_attention(queries * scale, key)[:, :, first:].transpose(0, 1).flatten(1)


def received_attention(queries: Tensor, keys: Tensor) -> Tensor:
    """Attention (n, heads, N) that N keys (n, heads, N, d) get from scaled queries (n, heads, q, d) on average."""
    rows = max(1, READ_AT_ONCE // (keys.shape[0] * keys.shape[1] * keys.shape[2]))
    total = sum((part @ keys.mT).softmax(dim=-1).sum(dim=-2) for part in queries.split(rows, dim=-2))
    return torch.as_tensor(total) / queries.shape[-2]


@contextmanager
def capture_encoder(model: PreTrainedModel, tower: Tower, method: Method) -> Iterator[list[CapturedVision]]:
    """Capture what a method needs of the encoder, one `CapturedVision` a pass; the model is as before on exit."""
    passes: list[CapturedVision] = []

    def begin(*_: Any) -> None:
        passes.append(CapturedVision())

    def read(_: nn.Module, args: tuple[Any, ...]) -> None:
        passes[-1].features.append(args[0].flatten(0, -2))

    with ExitStack() as stack:
        stack.callback(tower.of(model).register_forward_pre_hook(begin).remove)
        if method.needs & {"vision_attention", "vision_keys"}:
            attention = tower.attention(model, method.vision_layer)
            stack.callback(VisionCapture(attention, method, tower.has_cls_token(model), passes).stop)
        if EARLY in method.needs:
            attention = tower.attention(model, method.early_vision_layer)
            stack.callback(VisionCapture(attention, method, tower.has_cls_token(model), passes, is_early=True).stop)
        if "patch_features" in method.needs:
            stack.callback(tower.projector_of(model).register_forward_pre_hook(read).remove)
        yield passes
