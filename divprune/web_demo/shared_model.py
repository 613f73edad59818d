"""Share one model among sessions: selections and answers, one at a time, with the pruning undone after each.

image -> visual tokens -> **selection**, by the functions of a pruned call; the LLM runs where the method is inside it.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from divprune.checkpoints import LoadedModel
from divprune.config import PruningConfig
from divprune.demo.answering import finished, generated
from divprune.efficiency import Latency, interleave, prefill_seconds
from divprune.embedded.examples import Example
from divprune.errors import argument_errors
from divprune.huggingface import PruningReport, prune
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.call import Call
from divprune.huggingface.encoding.encode import encode
from divprune.huggingface.encoding.encoder_memory import EncoderMemory, remembering
from divprune.huggingface.families.token_layout import Layout, TokenBox, fit_of
from divprune.huggingface.fitting import require_fitting
from divprune.huggingface.selecting import select_items
from divprune.media import Medium
from divprune.prompting import build_inputs

_MAX_MEASURING_SECONDS = 5.0
_REPEATS = 5


@dataclass(frozen=True)
class ItemPicks:
    """What a method keeps of one image or video.

    Attributes:
        num_visual_tokens: M.
        order: indices of kept tokens, in the order they were picked.
        boxes: the place of each of the M tokens; None for those without one.
    """

    num_visual_tokens: int
    order: tuple[int, ...]
    boxes: tuple[TokenBox | None, ...]


@dataclass(frozen=True)
class ModelAnswer:
    """One answer, and what it took.

    Attributes:
        text: the answer.
        num_kept: visual tokens that the LLM read.
        num_visual_tokens: visual tokens of the prompt.
        kv_cache_bytes: keys and values of the prompt.
        prefill: time to the first token; None if it was not measured.
        selection_seconds: the part of it in which the method chooses; 0 unpruned.
        kept_indices: of each image or video, ascending.
        orders: the same in pick order.
    """

    text: str
    num_kept: int
    num_visual_tokens: int
    kv_cache_bytes: int
    prefill: Latency | None
    selection_seconds: float
    kept_indices: tuple[tuple[int, ...], ...]
    orders: tuple[tuple[int, ...], ...]


class SharedModel:
    """A model that several sessions ask at the same time; they are served one after the other."""

    def __init__(self, loaded: LoadedModel, max_new_tokens: int) -> None:
        """Share a model.

        Args:
            loaded: the model and its processor.
            max_new_tokens: length limit of an answer.
        """
        self.loaded = loaded
        self._max_new_tokens = max_new_tokens
        self._lock = threading.Lock()

    def inputs(self, example: Example) -> dict[str, Any]:
        """Build the inputs of `generate` for a question.

        Raises:
            PromptError: as for `build_inputs`.
        """
        with self._lock:
            return build_inputs(self.loaded, example.media, example.prompt)

    def picks(
        self, example: Example, inputs: dict[str, Any], config: PruningConfig, memory: EncoderMemory
    ) -> list[ItemPicks]:
        """Select, without answering; the LLM runs only for methods that act inside it.

        Args:
            example: the question.
            inputs: of it.
            config: how to prune.
            memory: of what the vision encoder makes of these images.

        Returns:
            One entry an image or video, in the order of the prompt.

        Raises:
            DivpruneError: the method cannot prune this model, or select from these tokens.
        """
        with self._lock, argument_errors(), remembering(memory):
            orders, layouts = (_inside if config.method.layers else _before)(self.loaded, inputs, config)
        return [
            ItemPicks(total, tuple(order), _boxes(layout, total, medium, self.loaded.processor))
            for (total, order), layout, medium in zip(orders, layouts, example.media, strict=True)
        ]

    def answers(
        self, inputs: dict[str, Any], configs: Sequence[PruningConfig], *, measure: bool
    ) -> tuple[ModelAnswer, list[ModelAnswer]]:
        """Answer a question from all visual tokens, then from what each config keeps.

        Args:
            inputs: of the question.
            configs: at least one.
            measure: whether the times to the first token are taken, in turn.

        Returns:
            The unpruned answer, and one for each config.

        Raises:
            DivpruneError: a method cannot prune this model, or select from these tokens.
        """
        with self._lock, argument_errors():
            unpruned = generated(self.loaded, inputs, self._max_new_tokens)
            pruned = []
            for config in configs:
                with prune(self.loaded.model, config) as pruning:
                    text = generated(self.loaded, inputs, self._max_new_tokens)
                    pruned.append((text, finished(pruning)))
            prefill = self._prefill(inputs, configs) if measure else [None] * (1 + len(configs))
        whole = pruned[0][1]
        total = whole.num_visual_tokens
        first = ModelAnswer(unpruned, total, total, whole.kv_cache_bytes_unpruned, prefill[0], 0.0, (), ())
        others = zip(pruned, prefill[1:], strict=True)
        return first, [_answer(text, report, latency) for (text, report), latency in others]

    def _prefill(self, inputs: dict[str, Any], configs: Sequence[PruningConfig]) -> list[Latency]:
        def pruned(config: PruningConfig) -> float:
            with prune(self.loaded.model, config):
                return prefill_seconds(self.loaded.model, inputs)

        measurements: list[Callable[[], float]] = [lambda: prefill_seconds(self.loaded.model, inputs)]
        measurements += [lambda config=config: pruned(config) for config in configs]  # type: ignore[misc]
        return interleave(measurements, repeats=_REPEATS, max_seconds=_MAX_MEASURING_SECONDS)


_Found = tuple[list[tuple[int, list[int]]], list[Layout | None]]
"""For each item its number of tokens and the picks among them; and where its tokens sit."""


@torch.no_grad()
def _before(loaded: LoadedModel, inputs: dict[str, Any], config: PruningConfig) -> _Found:
    """Encode and select as a pruned call does, without the LLM."""
    adapter = ModelAdapter.of(loaded.model)
    require_fitting(adapter, config)
    encoding = encode(adapter, config, Call.of_generate(adapter, inputs).inputs)
    selections = select_items(encoding.items, config)
    pairs = sorted(zip(encoding.items, selections, strict=True), key=lambda pair: int(pair[0].placeholders[0]))
    orders = [(len(item.visual_tokens), selection.selection_order.tolist()) for item, selection in pairs]
    return orders, [item.layout for item, _ in pairs]


def _inside(loaded: LoadedModel, inputs: dict[str, Any], config: PruningConfig) -> _Found:
    """Let the LLM read the prompt, where the method chooses."""
    with prune(loaded.model, config) as pruning:
        prefill_seconds(loaded.model, inputs)
        items = finished(pruning).items
    orders = [(item.num_visual_tokens, item.selection_order.tolist()) for item in items]
    return orders, [item.layout for item in items]


def _boxes(layout: Layout | None, total: int, medium: Medium, processor: Any) -> tuple[TokenBox | None, ...]:
    if layout is None:
        return (None,) * total
    return tuple(layout.boxes(torch.arange(total), medium.frames[0].size, fit_of(processor, medium.kind)))


def _answer(text: str, report: PruningReport, prefill: Latency | None) -> ModelAnswer:
    return ModelAnswer(
        text,
        report.num_kept,
        report.num_visual_tokens,
        report.kv_cache_bytes,
        prefill,
        report.selection_seconds,
        tuple(tuple(item.kept_indices.tolist()) for item in report.items),
        tuple(tuple(item.selection_order.tolist()) for item in report.items),
    )
