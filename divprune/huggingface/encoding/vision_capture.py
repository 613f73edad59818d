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
from divprune.methods.base import Method
from divprune.methods.item_context import Need

EARLY: Need = "early_vision_attention"
VISION_NEEDS: frozenset[Need] = frozenset(
    {"vision_attention", "vision_keys", EARLY, "patch_features", "cls_features", "clip_embeddings"}
)
"""The needs that are met by capturing in the vision encoder."""
_WITHOUT_HEADS: frozenset[Need] = frozenset({"patch_features", "cls_features", "clip_embeddings"})
READ_AT_ONCE = 2**26
"""Largest number of attention probabilities computed in one piece."""

_OF_LAYERS: tuple[frozenset[Need], ...] = (
    frozenset({"vision_attention", "vision_keys"}),
    frozenset({"early_vision_attention"}),
)
"""What comes from layer `vision_layer`, and what from `early_vision_layer`."""


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

    def on(self, device: torch.device) -> dict[Need, Tensor]:
        """Return what was captured, joined along the patches, float32."""
        return {
            need: torch.cat(pieces, dim=0 if need in _WITHOUT_HEADS else 1).to(device, torch.float32)
            for need, pieces in self.pieces.items()
        }


class VisionCapture(AttentionCapture):
    """Captures attention and keys of one attention module of a vision encoder."""

    def __init__(
        self,
        attention: nn.Module,
        method: Method,
        needs: frozenset[Need],
        has_cls_token: bool,
        passes: list[CapturedVision],
    ) -> None:
        """Start capturing some of the method's needs, into the last of `passes`."""
        self._method = method
        self._needs = needs
        self._has_cls_token = has_cls_token
        self._passes = passes
        super().__init__(attention)

    def capture(self, query: Tensor, key: Tensor, mask: Tensor | None, options: Mapping[str, Any]) -> None:
        """Keep what the method needs of queries and keys (n images, heads, tokens, d_head)."""
        if mask is not None:
            raise PruningError(f"method {self._method.name!r} cannot read a vision encoder that masks its attention")
        query, key = query.float(), key.float()
        captured, first = self._passes[-1], int(self._has_cls_token)
        if "vision_keys" in self._needs:
            captured.add("vision_keys", key[:, :, first:].transpose(0, 1).flatten(1, 2))
        scale = options.get("scaling") or query.shape[-1] ** -0.5
        if self._method.joins_heads:
            query, key = (part.transpose(1, 2).flatten(2).unsqueeze(1) for part in (query, key))
            scale = query.shape[-1] ** -0.5
        queries = query[:, :, :1] if self._has_cls_token and self._method.attending == "cls" else query
        for need in self._needs - {"vision_keys"}:
            received = received_attention(queries * scale, key)
            captured.add(need, received[:, :, first:].transpose(0, 1).flatten(1))


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
        passes[-1].add("patch_features", args[0].flatten(0, -2))

    def read_cls_tokens(_: nn.Module, __: Any, output: Any) -> None:
        features = tower.cls_features(model, output)
        if features is not None:
            passes[-1].add("cls_features", features)

    def read_last(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        states = output if isinstance(output, Tensor) else output[0]
        passes[-1].add("clip_embeddings", states[:, int(tower.has_cls_token(model)) :].flatten(0, 1))

    with ExitStack() as stack:
        stack.callback(tower.of(model).register_forward_pre_hook(begin).remove)
        for needs, layer in zip(_OF_LAYERS, (method.vision_layer, method.early_vision_layer), strict=True):
            if own := needs & method.needs:
                attention = tower.attention(model, layer)
                stack.callback(VisionCapture(attention, method, own, tower.has_cls_token(model), passes).stop)
        # CLS features need these too, to know how many patches there are.
        wanted = method.needs | (method.reads & {"cls_features"})
        if wanted & {"patch_features", "cls_features"}:
            stack.callback(tower.projector_of(model).register_forward_pre_hook(read).remove)
        if "clip_embeddings" in method.needs:
            stack.callback(tower.layers(model)[-1].register_forward_hook(read_last).remove)
        if "cls_features" in wanted and tower.has_cls_token(model):
            stack.callback(tower.of(model).register_forward_hook(read_cls_tokens).remove)
        yield passes
