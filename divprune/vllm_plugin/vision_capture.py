"""Capture what methods need of vLLM's vision towers while they run: attention, keys, and what the projector reads.

pixels -> **vision tower** -> projector -> visual tokens -> selection. vLLM's towers hand back no attention. But each
layer gives queries and keys, of the heads of its rank, to a module of their own, where they are read.

vLLM builds a tower up to the layer that the projector reads, and some methods want a later one. Then it is built that
far, and what the encoder hands on stays what it was:

    layers 0 ... 22 -> what the projector reads      LLaVA-1.5: hidden state -2 of 24 layers
               '--> layer 23: queries and keys only  for methods with `vision_layer` -1
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from vllm.distributed import get_tp_group

from divprune.errors import UnsupportedVersionError
from divprune.methods import Method
from divprune.methods.base import Need
from divprune.methods.vision_inputs import CapturedVision
from divprune.vllm_plugin.contracts import refusal
from divprune.vllm_plugin.vision_layers import layers_read, num_layers_built

FEATURE_LAYER = "vision_feature_layer"


@contextmanager
def deep_enough(config: Any, method: Method) -> Iterator[None]:
    """Have vLLM build a vision tower up to the last layer that the method reads.

    Args:
        config: The model's, which is as before on exit.
        method: The method.
    """
    before = getattr(config, FEATURE_LAYER)
    config.vision_feature_layer = max(
        num_layers_built(config), *(layer + 1 for _, layer in layers_read(config, method)), 0
    )
    try:
        yield
    finally:
        config.vision_feature_layer = before


class TowerCapture:
    """Captures what a method needs of a CLIP or SigLIP tower; outside `capturing`, nothing happens."""

    def __init__(self, tower: nn.Module, projector: nn.Module, config: Any, method: Method) -> None:
        """Put hooks on the layers that the method reads.

        Args:
            tower: vLLM's, built as `deep_enough` says.
            projector: Behind it, which reads patches one by one.
            config: The whole model's.
            method: The method.

        Raises:
            UnsupportedVersionError: The tower is built otherwise than in the versions that are known.
        """
        self.has_cls_token = has_cls_token(tower)
        self._method = method
        self._width: int = config.vision_config.hidden_size
        self._num_heads: int = config.vision_config.num_attention_heads
        self._captured: CapturedVision | None = None
        try:
            encoder = cast(Any, tower).vision_model.encoder
            for needs, layer in layers_read(config, method):
                self._read_layer(encoder.layers[layer].self_attn.attn, needs)
            features = num_layers_built(config) - 1
            if "cls_features" in method.reads and self.has_cls_token:
                encoder.layers[features].register_forward_hook(self._read_cls_token)
            if len(encoder.layers) > features + 1:
                self._stop_at(encoder, encoder.layers[features])
        except (AttributeError, IndexError) as error:
            raise UnsupportedVersionError(refusal([f"the layers of {type(tower).__name__} ({error})"])) from error
        if "patch_features" in method.needs:
            projector.register_forward_pre_hook(self._read_patches)

    @contextmanager
    def capturing(self) -> Iterator[CapturedVision]:
        """Capture what runs meanwhile."""
        self._captured = captured = CapturedVision()
        try:
            yield captured
        finally:
            self._captured = None

    def _read_layer(self, attention: nn.Module, needs: frozenset[Need]) -> None:
        def read(_: nn.Module, args: tuple[Tensor, ...], kwargs: Mapping[str, Any]) -> None:
            if self._captured is not None:
                query, key = (self._all_heads(part) for part in [*args, *kwargs.values()][:2])
                scale = query.shape[-1] ** -0.5
                self._captured.add_layer(self._method, needs, query, key, scale, self.has_cls_token)

        attention.register_forward_pre_hook(read, with_kwargs=True)

    def _all_heads(self, part: Tensor) -> Tensor:
        """Return (n, heads, tokens, d_head) of (n, tokens, width), whose heads may be split over the ranks."""
        if part.shape[-1] != self._width:
            part = get_tp_group().all_gather(part.contiguous(), dim=-1)
        return part.unflatten(-1, (self._num_heads, -1)).transpose(1, 2)

    def _read_cls_token(self, _: nn.Module, __: Any, output: Any) -> None:
        if self._captured is not None:
            self._captured.add("cls_features", _states(output)[:, 0])

    def _read_patches(self, _: nn.Module, args: tuple[Tensor, ...]) -> None:
        if self._captured is not None:
            self._captured.add("patch_features", args[0].flatten(0, -2))

    @staticmethod
    def _stop_at(encoder: nn.Module, layer: nn.Module) -> None:
        """Let an encoder hand on what one of its layers gives, whatever comes behind it."""
        given: list[Tensor] = []
        layer.register_forward_hook(lambda _, __, output: given.append(_states(output)))
        encoder.register_forward_hook(lambda *_: given.pop())


def has_cls_token(tower: nn.Module) -> bool:
    """Tell whether the first of a tower's tokens stands for the whole image."""
    return any(name.endswith("class_embedding") for name, _ in tower.named_parameters())


def _states(output: Any) -> Tensor:
    """Return the hidden states (n, tokens, d) that a layer gives, alone or with more."""
    return output if isinstance(output, torch.Tensor) else output[0]
