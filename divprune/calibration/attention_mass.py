"""How much attention each visual token receives in every layer of an unpruned pass: what FitPrune is fitted to."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.fingerprint import fingerprint
from divprune.huggingface.pruning import prune
from divprune.huggingface.report import PruningReport
from divprune.methods.base import Count, Method, Stage
from divprune.methods.fitprune import received
from divprune.methods.fitprune_recipe import AttentionMass
from divprune.methods.item_context import ItemContext, Need


@dataclass(frozen=True)
class AttentionSamples:
    """What a few samples say of a model.

    Attributes:
        model: its fingerprint.
        first_layer: the decoder layer that the masses begin with; they end before the last layer.
        masses: of each image and video.
        prompts: text tokens and visual tokens of each prompt that has any.
    """

    model: str
    first_layer: int
    masses: tuple[AttentionMass, ...]
    prompts: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Listener(Method):
    """Keeps every token at every layer, and notes what attention each receives."""

    name: ClassVar[str] = "listener"
    count: ClassVar[Count] = "schedule"
    needs: ClassVar[frozenset[Need]] = frozenset({"text_attention", "visual_peak_attention"})
    first_layer: int
    last_layer: int
    heard: dict[int, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(range(self.first_layer, self.last_layer + 1))

    def schedule(self, num_visual_tokens: int) -> tuple[Stage, ...]:
        return tuple(Stage(layer, num_visual_tokens) for layer in self.layers)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        self.heard.setdefault(context.index, []).append(received(context, self.name))
        return torch.arange(num_keep, device=visual_tokens.device)

    @property
    def masses(self) -> list[AttentionMass]:
        return [
            AttentionMass(*(torch.stack(parts).cpu() for parts in zip(*layers, strict=True)))
            for _, layers in sorted(self.heard.items())
        ]


@torch.no_grad()
def attention_masses(
    model: PreTrainedModel,
    samples: Iterable[Mapping[str, Any]],
    first_layer: int = 0,
    after_call: Callable[[], None] = lambda: None,
) -> AttentionSamples:
    """Run samples unpruned, once each, and note the attention to their visual tokens.

    Args:
        model: a model of a supported family that is not pruned.
        samples: model inputs as the processor makes them, with images; each may be a batch.
        first_layer: the first decoder layer to listen to.
        after_call: called after each forward pass.

    Raises:
        ValueError: there are no samples, one has no images, or the layer is out of range.
        UnsupportedModelError: the model's layers cannot lose tokens, or have no attention to listen to.
    """
    layers = ModelAdapter.of(model).num_layers
    if not 0 <= first_layer <= layers - 2:
        raise ValueError(f"first_layer must be between 0 and {layers - 2} for this model, got {first_layer}")
    masses: list[AttentionMass] = []
    prompts: list[tuple[int, int]] = []
    for number, sample in enumerate(samples):
        listener = _Listener(first_layer + 1, layers - 1)
        with prune(model, listener) as pruning:
            model(**sample)
        if not listener.heard or pruning.last is None:
            raise ValueError(f"samples must hold prompts with images, got none in sample {number}")
        masses += listener.masses
        prompts += _prompt_sizes(pruning.last)
        after_call()
    if not masses:
        raise ValueError("samples must hold at least one prompt, got none")
    return AttentionSamples(fingerprint(model), first_layer, tuple(masses), tuple(prompts))


def _prompt_sizes(report: PruningReport) -> list[tuple[int, int]]:
    """Text and visual tokens of each row with images, of a report of a call that kept everything."""
    visual: dict[int, int] = {}
    for item in report.items:
        visual[item.row] = visual.get(item.row, 0) + item.num_visual_tokens
    return [(int(report.keep_mask[row].sum()) - count, count) for row, count in visual.items()]
