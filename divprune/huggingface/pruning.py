"""`prune(model, ...)` and `attach(model, ...)`: the whole story of a call.

```
generate(**inputs)
  Call.of_generate        call.py                    read prompt, mask, cache; refuse what would be silently wrong
  encode                  encoding/encode.py         images and videos -> visual tokens, one item each
  select_items            selecting.py               the method's k of M, per item, frame or sample
  prune_prompt            input_pruning/prompt.py    fewer placeholders; ids, masks, positions gathered to match
  generating              input_pruning/generation.py  the model's own generate, on the pruned prompt
  restored                                           the original prompt back in front of what it returned
  report                  report.py                  pruning.last
```

`generate` and `forward` are wrapped on the instance (`wrapping.py`). `generate` runs on the same modules without the
wrappers, so nothing of ours runs per decoded token. A method that acts inside the LLM leaves the prompt as it is: hooks
on the decoder layers drop the tokens half-way, for the time of the call (`layer_pruning/`).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from divprune.config import Order, Positions, PruningConfig, Scope
from divprune.errors import PruningError
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.call import Call
from divprune.huggingface.encoding.encode import encode
from divprune.huggingface.encoding.method_inputs import require_vision_needs
from divprune.huggingface.encoding.vision_capture import VISION_NEEDS
from divprune.huggingface.families.registry import Family
from divprune.huggingface.fingerprint import require_same_model
from divprune.huggingface.input_pruning.cache import unlocked
from divprune.huggingface.input_pruning.forward import forward_arguments, forward_text, remember_forward
from divprune.huggingface.input_pruning.generation import generating, remember, restored
from divprune.huggingface.input_pruning.prompt import prune_prompt, text_prompt, whole_conversation
from divprune.huggingface.layer_pruning.call import LayerPruning, continuing, text_arguments, text_report, uncompiled
from divprune.huggingface.layer_pruning.checks import require_droppable_layers
from divprune.huggingface.report import PruningReport
from divprune.huggingface.selecting import select_items
from divprune.huggingface.wrapping import BareModel, Wrapper
from divprune.methods.base import Method


class Pruning:
    """A pruned model's handle: `last` tells what the last finished call did, `detach` undoes everything.

    Calls from several threads are made one after the other.

    Attributes:
        last: report of the last finished call; None before the first.
    """

    def __init__(self, adapter: ModelAdapter, config: PruningConfig) -> None:
        """Wrap the model; use `attach` or `prune`."""
        self.last: PruningReport | None = None
        self._adapter: ModelAdapter | None = adapter
        self._config = config
        self._drops_inside = bool(config.method.layers)
        self._bare = BareModel(adapter.model)
        self._forward_unpruned: Callable[..., Any] = adapter.model.forward
        self._lock = threading.RLock()
        self._generating: int | None = None
        self._wrappers = {
            "generate": Wrapper(cast(Callable[..., Any], adapter.model.generate), self._generate),
            "forward": Wrapper(self._forward_unpruned, self._forward),
        }
        adapter.model.__dict__.update(self._wrappers)

    def detach(self) -> None:
        """Give the model back as it was, after calls of other threads have ended. A second call does nothing."""
        with self._lock:
            if self._adapter is not None:
                for name in self._wrappers:
                    self._adapter.model.__dict__.pop(name, None)
                self._adapter.model.__dict__.update(self._bare.before)
            self._adapter = None

    @torch.no_grad()
    def _generate(self, arguments: dict[str, Any]) -> Any:
        with self._own_generate() as adapter:
            call = Call.of_generate(adapter, arguments)
            if call.has_media and self._drops_inside:
                return self._generate_inside(call)
            if call.is_text_only:
                return self._generate_text(call)
            inputs = whole_conversation(call, is_generate=True)
            encoding = encode(adapter, self._config, inputs, call.past_length)
            selections = select_items(encoding.items, self._config)
            pruned = prune_prompt(call, inputs, self._config, encoding, selections)
            owner, generate = self._bare.generator()
            with generating(owner, call, pruned) as inputs:
                output = generate(**inputs)
            self.last = pruned.report(adapter.model, inputs["input_ids"].shape[1])
            return restored(call, pruned, inputs, output)

    def _generate_inside(self, call: Call) -> Any:
        call = replace(call, inputs=uncompiled(call.adapter, call.inputs))
        layer_pruning = LayerPruning(call, self._config)
        output = layer_pruning.generate(*self._bare.generator())
        self.last = layer_pruning.report()
        return output

    def _generate_text(self, call: Call) -> Any:
        call.refuse_placeholders()
        is_fresh, report, inputs = call.is_fresh, text_report(call), text_arguments(call)
        with continuing(call):
            output = self._bare.generator()[1](**inputs)
        if is_fresh and call.attention_mask is not None and not self._drops_inside:
            prompt = text_prompt(call, self._config, call.attention_mask)
            remember(call, prompt, output, prompt.length)
        self.last = report
        return output

    def _forward(self, arguments: dict[str, Any]) -> Any:
        if self._generating == threading.get_ident():
            # Another library's `generate` calls the model, on a prompt that is pruned already.
            return self._forward_unpruned(**arguments)
        with self._lock:
            adapter = self._attached()
            call = Call.of_forward(adapter, arguments)
            if call.has_media and self._drops_inside:
                return self._forward_inside(call)
            if not call.has_media and call.dropped is not None:
                with continuing(call):
                    return self._forward_unpruned(**call.inputs)
            if not call.has_media:
                call.refuse_placeholders()
                if not call.continues_pruned_prompt:
                    return forward_text(call, self._config, self._forward_unpruned)
            inputs = whole_conversation(call, is_generate=False)
            encoding = encode(adapter, self._config, inputs, call.past_length)
            selections = select_items(encoding.items, self._config)
            pruned = prune_prompt(call, inputs, self._config, encoding, selections)
            with unlocked(call.cache):
                output = self._forward_unpruned(**forward_arguments(call, pruned))
            remember_forward(call, pruned, output)
            self.last = pruned.report(adapter.model, pruned.gather_index.shape[1])
            return output

    def _forward_inside(self, call: Call) -> Any:
        layer_pruning = LayerPruning(call, self._config)
        output = layer_pruning.forward(self._forward_unpruned)
        self.last = layer_pruning.report()
        return output

    def _attached(self) -> ModelAdapter:
        if self._adapter is None:
            raise PruningError("this pruning handle is detached; attach the model again")
        return self._adapter

    @contextmanager
    def _own_generate(self) -> Iterator[ModelAdapter]:
        """Hold the lock, and let `forward` know that `generate` calls it."""
        with self._lock:
            before, self._generating = self._generating, threading.get_ident()
            try:
                yield self._attached()
            finally:
                self._generating = before


def attach(
    model: PreTrainedModel,
    method: Method | str = "divprune",
    *,
    keep_ratio: float | None = None,
    num_keep: int | None = None,
    scope: Scope = "item",
    order: Order = "sorted",
    positions: Positions | None = None,
) -> Pruning:
    """Prune the visual tokens of every later call of `model.generate` and `model.forward`, until `detach()`.

    Args:
        model: a transformers model of a supported family (`supported_families()`), or PEFT's wrapper of one.
        method: which tokens to keep: a method, or its name as on the command line ("random:seed=3").
        keep_ratio: fraction of the visual tokens kept, in (0, 1]; k = max(1, round(keep_ratio * M)).
        num_keep: number of visual tokens kept, at least 1; items with fewer tokens keep all. Give one of the
            two, or none to a method that says itself how many tokens stay.
        scope: what shares one budget: each "item" (one image with all its tiles, one video), each "frame" of a video,
            or the whole "sample" (all items of a row).
        order: "sorted" feeds the kept tokens in their original order, "selection" in the order they were picked.
        positions: "compact" numbers the pruned prompt 0..n'-1 as the paper's code does, "original" keeps each token's
            own position; None is the family's default, or "original" for a method inside the LLM.

    Returns:
        The handle. `forward` returns logits over the PRUNED prompt, and `labels` are gathered alike;
        `pruning.last.keep_mask` says which tokens of the original prompt stand there.

    Raises:
        UnsupportedModelError: no adapter for this model, or its layers cannot lose tokens half-way.
        PruningError: the model is pruned already, or compiled as a whole.
        CalibrationError: the method was calibrated on another model.
        ValueError: an argument is out of range, or does not apply to this model or method.
    """
    model = getattr(model, "get_base_model", lambda: model)()
    adapter = ModelAdapter.of(model)
    if getattr(model, "_compiled_call_impl", None) is not None:
        raise PruningError(
            "model.compile() must not have been called, it would compile the pruning too; before pruning, write "
            "model.forward = torch.compile(model.forward)"
        )
    config = PruningConfig.parse(
        method, keep_ratio=keep_ratio, num_keep=num_keep, scope=scope, order=order, positions=positions
    )
    _require_fitting(adapter, config)
    return Pruning(adapter, config)


@contextmanager
def prune(
    model: PreTrainedModel,
    method: Method | str = "divprune",
    *,
    keep_ratio: float | None = None,
    num_keep: int | None = None,
    scope: Scope = "item",
    order: Order = "sorted",
    positions: Positions | None = None,
) -> Iterator[Pruning]:
    """Prune a model inside a `with` block; arguments, errors and handle as for `attach`.

    Example:
        >>> with prune(model, DivPrune(), keep_ratio=0.098) as pruning:
        ...     output = model.generate(**inputs, max_new_tokens=32)
        >>> pruning.last.num_kept
        56
    """
    pruning = attach(
        model, method, keep_ratio=keep_ratio, num_keep=num_keep, scope=scope, order=order, positions=positions
    )
    try:
        yield pruning
    finally:
        pruning.detach()


def _require_fitting(adapter: ModelAdapter, config: PruningConfig) -> None:
    """Refuse a config that does not fit the model."""
    method, family = config.method, adapter.family
    _require_positions(family, config.positions)
    if method.calibrated_on is not None:
        require_same_model(adapter.model, method.calibrated_on, f"calibrate {method.name!r} again, on this model")
    if method.layers:
        require_droppable_layers(adapter, config)
    if method.needs & VISION_NEEDS:
        require_vision_needs(adapter, method)


def _require_positions(family: Family, positions: Positions | None) -> None:
    if positions == "compact" and family.positions == "original":
        raise ValueError(
            f"positions must be 'original' or None for {family.name!r}, got 'compact': its position ids are "
            "(frame, row, column) coordinates, which must stay with their tokens"
        )
    if positions == "original" and not family.takes_positions:
        raise ValueError(
            f"positions must be 'compact' or None for {family.name!r}, got 'original': its generate() counts the "
            "positions anew"
        )
