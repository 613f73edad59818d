"""Capture what methods need of vLLM's vision towers while they run: attention, keys, and what the projector reads.

pixels -> **vision tower** -> projector -> visual tokens -> selection. vLLM's towers hand back no attention. But each
layer gives queries and keys, of the heads of its rank, to a module of their own, where they are read.

vLLM builds LLaVA's towers up to the layer that the projector reads, and some methods want a later one. Then they are
built that far, and what the encoder hands on stays what it was:

    layers 0 ... 22 -> what the projector reads      LLaVA-1.5: hidden state -2 of 24 layers
               '--> layer 23: queries and keys       for methods with `vision_layer` -1
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from vllm.distributed import get_tp_group

from divprune.errors import UnsupportedVersionError
from divprune.methods import Method
from divprune.methods.item_context import Need
from divprune.methods.vision_inputs import CapturedVision
from divprune.vllm_plugin.contracts import refusal
from divprune.vllm_plugin.vision_layers import layers_read, num_heads, num_layers_built

LAYERS_NAMES = ("layers", "layer", "blocks")
ATTENTION_NAMES = ("self_attn", "attention", "attn")
"""What a layer calls the module whose own `attn` is given queries and keys."""


@contextmanager
def deep_enough(config: Any, method: Method) -> Iterator[None]:
    """Have vLLM build a vision tower up to the last layer that the method reads.

    Args:
        config: The model's, which is as before on exit.
        method: The method.
    """
    layers = [layer for _, layer in layers_read(config, method)]
    if not layers or max(layers) < num_layers_built(config):
        yield
        return
    before, deepest = config.vision_feature_layer, max(layers) + 1
    config.vision_feature_layer = deepest
    try:
        yield
    finally:
        config.vision_feature_layer = before


class TowerCapture:
    """Captures what a method needs of a vision tower; outside `capturing`, nothing happens."""

    def __init__(
        self, tower: nn.Module, projector: nn.Module, config: Any, method: Method, projects_cls_token: bool
    ) -> None:
        """Put hooks on the layers that the method reads.

        Args:
            tower: vLLM's, built as `deep_enough` says.
            projector: Behind it.
            config: The whole model's.
            method: The method.
            projects_cls_token: Whether the projector could make a token of a CLS token.

        Raises:
            UnsupportedVersionError: The tower is built otherwise than in the versions that are known.
        """
        self.has_cls_token = any(
            name.endswith(("class_embedding", "cls_token")) for name, _ in tower.named_parameters()
        )
        self._method = method
        self._num_heads = num_heads(config)
        self._captured: CapturedVision | None = None
        self._lengths: Sequence[int] | None = None
        try:
            encoder, layers = _layers(tower)
            for needs, layer in layers_read(config, method):
                self._read_layer(_attention(layers[layer]), needs)
            last = num_layers_built(config) - 1
            if "cls_features" in method.reads and projects_cls_token and self.has_cls_token:
                layers[last].register_forward_hook(self._read_cls_token)
            if len(layers) > last + 1:
                _stop_at(encoder, layers[last])
        except (AttributeError, IndexError, StopIteration) as error:
            raise UnsupportedVersionError(refusal([f"the layers of {type(tower).__name__} ({error})"])) from error
        if "patch_features" in method.needs:
            projector.register_forward_pre_hook(self._read_patches, with_kwargs=True)

    @contextmanager
    def capturing(self, lengths: Sequence[int] | None) -> Iterator[CapturedVision]:
        """Capture what runs meanwhile.

        Args:
            lengths: How many patches see each other, one such group after the other, where the tower is given all of a
                batch as one sequence; None where it is given image by image.
        """
        self._captured, self._lengths = CapturedVision(), lengths
        try:
            yield self._captured
        finally:
            self._captured = None

    def _read_layer(self, attention: nn.Module, needs: frozenset[Need]) -> None:
        split = cast(Any, attention).num_heads < self._num_heads

        def read(_: nn.Module, args: tuple[Tensor, ...], kwargs: Mapping[str, Any]) -> None:
            if self._captured is None:
                return
            query, key = (self._by_heads(part, split) for part in [*args, *kwargs.values()][:2])
            scale, lengths = query.shape[-1] ** -0.5, list(self._lengths or [query.shape[2]])
            for own in zip(query.split(lengths, dim=2), key.split(lengths, dim=2), strict=True):
                self._captured.add_layer(self._method, needs, *own, scale, self.has_cls_token)

        attention.register_forward_pre_hook(read, with_kwargs=True)

    def _by_heads(self, part: Tensor, is_split: bool) -> Tensor:
        """Return (n, heads, tokens, d_head) of what this rank has: (n, tokens, width) or (n, tokens, heads, d_head)."""
        flat = part.flatten(2)
        if is_split:
            flat = get_tp_group().all_gather(flat.contiguous(), dim=-1)
        return flat.unflatten(-1, (self._num_heads, -1)).transpose(1, 2)

    def _read_cls_token(self, _: nn.Module, __: Any, output: Any) -> None:
        if self._captured is not None:
            self._captured.add("cls_features", _states(output)[:, 0])

    def _read_patches(self, _: nn.Module, args: tuple[Tensor, ...], kwargs: Mapping[str, Any]) -> None:
        if self._captured is not None:
            self._captured.add("patch_features", next(iter([*args, *kwargs.values()])).flatten(0, -2))


def _layers(tower: nn.Module) -> tuple[nn.Module, nn.ModuleList]:
    """Return the module of a tower that runs its layers, and these."""
    return next(
        (module, child)
        for module in tower.modules()
        for name, child in module.named_children()
        if name in LAYERS_NAMES and isinstance(child, nn.ModuleList)
    )


def _attention(layer: nn.Module) -> nn.Module:
    """Return the module of a layer that is given queries and keys."""
    children = dict(layer.named_children())
    found = next(children[name] for name in ATTENTION_NAMES if name in children)
    return cast(nn.Module, found.attn)


def _stop_at(encoder: nn.Module, layer: nn.Module) -> None:
    """Let an encoder hand on what one of its layers gives, whatever comes after it."""
    given: list[Tensor] = []
    layer.register_forward_hook(lambda _, __, output: given.append(_states(output)))
    encoder.register_forward_hook(lambda *_: given.pop())


def _states(output: Any) -> Tensor:
    """Return the hidden states (n, tokens, d) that a layer gives, alone or with more."""
    return output if isinstance(output, torch.Tensor) else output[0]
