"""Capture attention and keys of one layer of the vision encoder while it runs, and what the projector reads.

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

VISION_NEEDS: frozenset[Need] = frozenset({"vision_attention", "vision_keys", "patch_features", "clip_embeddings"})
"""The needs that are met by capturing in the vision encoder."""
READ_AT_ONCE = 2**26
"""Largest number of attention probabilities computed in one piece."""


@dataclass
class CapturedVision:
    """What was captured in one pass of the encoder: pieces along the patches (P), CLS tokens left out.

    Attributes:
        attention: (heads, P) pieces.
        keys: (heads, P, d_head) pieces.
        features: what the projector read, (P or M, d).
        last_states: what the last layer gave, (P, d) pieces.
    """

    attention: list[Tensor] = field(default_factory=list)
    keys: list[Tensor] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)
    last_states: list[Tensor] = field(default_factory=list)

    def on(self, device: torch.device) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Attention (heads, P), keys (heads, P, d_head) and features (P or M, d), float32; None if not captured."""
        attention = torch.cat(self.attention, dim=1).to(device) if self.attention else None
        keys = torch.cat(self.keys, dim=1).to(device) if self.keys else None
        return attention, keys, torch.cat(self.features).to(device, torch.float32) if self.features else None


class VisionCapture(AttentionCapture):
    """Captures attention and keys of one attention module of a vision encoder."""

    def __init__(self, attention: nn.Module, method: Method, has_cls_token: bool, passes: list[CapturedVision]) -> None:
        """Start capturing, into the last of `passes`."""
        self._method = method
        self._has_cls_token = has_cls_token
        self._passes = passes
        super().__init__(attention)

    def capture(self, query: Tensor, key: Tensor, mask: Tensor | None, options: Mapping[str, Any]) -> None:
        """Keep what the method needs of queries and keys (n images, heads, tokens, d_head)."""
        if mask is not None:
            raise PruningError(f"method {self._method.name!r} cannot read a vision encoder that masks its attention")
        query, key = query.float(), key.float()
        captured, first = self._passes[-1], int(self._has_cls_token)
        if "vision_keys" in self._method.needs:
            captured.keys.append(key[:, :, first:].transpose(0, 1).flatten(1, 2))
        if "vision_attention" not in self._method.needs:
            return
        scale = options.get("scaling") or query.shape[-1] ** -0.5
        if self._method.joins_heads:
            query, key = (part.transpose(1, 2).flatten(2).unsqueeze(1) for part in (query, key))
            scale = query.shape[-1] ** -0.5
        queries = query[:, :, :1] if self._has_cls_token else query
        captured.attention.append(received_attention(queries * scale, key)[:, :, first:].transpose(0, 1).flatten(1))


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

    def read_last(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        states = output if isinstance(output, Tensor) else output[0]
        passes[-1].last_states.append(states[:, int(tower.has_cls_token(model)) :].flatten(0, 1))

    with ExitStack() as stack:
        stack.callback(tower.of(model).register_forward_pre_hook(begin).remove)
        if method.needs & {"vision_attention", "vision_keys"}:
            attention = tower.attention(model, method.vision_layer)
            stack.callback(VisionCapture(attention, method, tower.has_cls_token(model), passes).stop)
        if "patch_features" in method.needs:
            stack.callback(tower.projector_of(model).register_forward_pre_hook(read).remove)
        if "clip_embeddings" in method.needs:
            stack.callback(tower.layers(model)[-1].register_forward_hook(read_last).remove)
        yield passes
