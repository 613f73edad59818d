"""Capture attention and keys of layers of the vision encoder while it runs, and what the projector reads.

Nothing is computed that no method asks for, and every other layer keeps its own attention.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from divprune.errors import PruningError
from divprune.huggingface.encoding.attention_capture import AttentionCapture
from divprune.huggingface.families.vision_towers import Tower
from divprune.methods.base import Method
from divprune.methods.item_context import Need
from divprune.methods.vision_inputs import LAYER_NEEDS, CapturedVision


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
        scale = options.get("scaling") or query.shape[-1] ** -0.5
        self._passes[-1].add_layer(self._method, self._needs, query, key, scale, self._has_cls_token)


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
        for needs, layer in zip(LAYER_NEEDS, (method.vision_layer, method.early_vision_layer), strict=True):
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
