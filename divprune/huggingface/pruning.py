"""`prune(model, ...)` and `attach(model, ...)`: the whole story.

The model's `generate` and `forward` are wrapped on the instance. A call with pictures is encoded by the model's own
encoder, the method chooses, the prompt is shortened, and the original `generate` runs on the short prompt with the
kept tokens as `mm_encoder_outputs`; then the original prompt is put back into what it returns. `generate` runs on the
model without the wrappers: nothing of ours runs per decoded token. A method that acts inside the language model
leaves the prompt as it is; hooks on the decoder layers drop the tokens half-way, for the time of the call.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from divprune.errors import PruningError
from divprune.huggingface.arguments import checked_settings
from divprune.huggingface.cache_names import cache_in
from divprune.huggingface.encoding.encode import has_visual_inputs, require_no_placeholders
from divprune.huggingface.encoding.encoder_output import whole_rows_repeated
from divprune.huggingface.families.registry import Positions, family_of
from divprune.huggingface.input_pruning.cache import is_continued, lock_dropped, unlocked
from divprune.huggingface.input_pruning.call import forward_short, generate_short, remember_text
from divprune.huggingface.input_pruning.generation import full_attention_mask, refuse_unsupported
from divprune.huggingface.input_pruning.shorten import Order, Settings
from divprune.huggingface.layer_pruning.call import (
    InsideCall,
    continuing,
    forward_inside,
    forward_mask,
    generate_inside,
    inside_call,
    prepare_generation,
    text_report,
    with_continued_positions,
)
from divprune.huggingface.layer_pruning.state import dropped_prompt
from divprune.huggingface.report import PruningReport
from divprune.huggingface.selecting import Scope
from divprune.huggingface.wrapping import BareModel, Wrapper, is_wrapped
from divprune.methods.base import Method


class Pruning:
    """A pruned model's handle: `last` tells what the last finished call did, `detach` undoes everything.

    Calls from several threads are made one after the other.

    Attributes:
        last: report of the last finished call; None before the first.
    """

    def __init__(self, model: PreTrainedModel, settings: Settings) -> None:
        """Wraps the model; use `attach` or `prune`."""
        self.last: PruningReport | None = None
        self._model: PreTrainedModel | None = model
        self._family = family_of(model)
        self._settings = settings
        self._bare = BareModel(model)
        self._generate = cast(Callable[..., Any], model.generate)
        self._forward: Callable[..., Any] = model.forward
        self._lock = threading.RLock()
        self._generating: int | None = None
        self._wrappers = {
            "generate": Wrapper(self._generate, self._run_generate),
            "forward": Wrapper(self._forward, self._run_forward),
        }
        model.__dict__.update(self._wrappers)

    def detach(self) -> None:
        """Gives the model back as it was, after calls of other threads have ended. A second call does nothing."""
        with self._lock:
            if self._model is not None:
                for name in self._wrappers:
                    self._model.__dict__.pop(name, None)
                self._model.__dict__.update(self._bare.before)
            self._model = None

    def _attached_model(self) -> PreTrainedModel:
        if self._model is None:
            raise PruningError("this pruning handle is detached; attach the model again")
        return self._model

    @torch.no_grad()
    def _run_generate(self, inputs: dict[str, Any]) -> Any:
        with self._lock:
            before, self._generating = self._generating, threading.get_ident()
            try:
                return self._generate_pruned(inputs)
            finally:
                self._generating = before

    def _run_forward(self, inputs: dict[str, Any]) -> Any:
        if self._generating == threading.get_ident():
            # Another library's `generate` calls the model, on a prompt that is short already.
            return self._forward(**inputs)
        with self._lock:
            return self._forward_pruned(inputs)

    def _runner(self, model: PreTrainedModel) -> tuple[PreTrainedModel, Callable[..., Any]]:
        """The model whose `generate` to call, and that method."""
        if "generate" in self._bare.before:
            return model, self._generate
        bare = self._bare.current()
        return bare, cast(Callable[..., Any], bare.generate)

    def _generate_pruned(self, inputs: dict[str, Any]) -> Any:
        model = self._attached_model()
        refuse_unsupported(model, inputs)
        if "inputs" in inputs:
            inputs["input_ids"] = inputs.pop("inputs")
        mask = full_attention_mask(model, inputs)
        if has_visual_inputs(inputs) and self._settings.method.layers:
            prepare_generation(model, inputs)
            runner, generate = self._runner(model)
            return self._run_inside(model, runner, inputs, cast(Tensor, mask), partial(generate_inside, generate))
        if has_visual_inputs(inputs) or is_continued(inputs):
            runner, generate = self._runner(model)
            result, self.last = generate_short(runner, self._family, self._settings, generate, inputs, mask)
            return result
        self._refuse_placeholders(model, inputs)
        return self._generate_text(model, inputs, mask)

    def _refuse_placeholders(self, model: PreTrainedModel, inputs: dict[str, Any]) -> None:
        """In a call without pictures, unless a cache may hold what they stand for."""
        ids, cache = inputs.get("input_ids"), cache_in(inputs)
        if ids is not None and (cache is None or cache.get_seq_length() == 0):
            require_no_placeholders(model, self._family, ids)

    def _generate_text(self, model: PreTrainedModel, inputs: dict[str, Any], mask: Tensor | None) -> Any:
        cache = cache_in(inputs)
        is_fresh = cache is None or cache.get_seq_length() == 0
        dropped = dropped_prompt(cache)
        if dropped is not None:
            prepare_generation(model, inputs)
        report = text_report(model, mask, dropped)
        inputs = with_continued_positions(dropped, inputs, mask)
        with unlocked(cache), continuing(model, dropped, inputs):
            result = self._runner(model)[1](**inputs)
        if is_fresh and mask is not None and not self._settings.method.layers:
            remember_text(model, self._family, self._settings, inputs, result, mask)
        self.last = report
        return result

    def _run_inside(
        self,
        model: PreTrainedModel,
        runner: PreTrainedModel,
        inputs: dict[str, Any],
        mask: Tensor,
        run: Callable[[InsideCall], Any],
    ) -> Any:
        call = inside_call(model, self._family, self._settings, inputs, mask)
        with unlocked(cache_in(inputs)), whole_rows_repeated(runner, call.row_sizes):
            result = run(call)
        lock_dropped(cache_in(inputs), result)
        self.last = call.report(model)
        return result

    def _forward_pruned(self, inputs: dict[str, Any]) -> Any:
        model = self._attached_model()
        dropped = dropped_prompt(cache_in(inputs))
        if has_visual_inputs(inputs) and self._settings.method.layers:
            run = partial(forward_inside, model, self._forward)
            return self._run_inside(model, model, inputs, forward_mask(inputs), run)
        if not has_visual_inputs(inputs) and dropped is not None:
            with unlocked(cache_in(inputs)), continuing(model, dropped, inputs):
                return self._forward(**inputs)
        if not has_visual_inputs(inputs):
            self._refuse_placeholders(model, inputs)
        result, report = forward_short(model, self._family, self._settings, self._forward, inputs)
        self.last = report or self.last
        return result


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
    """Prunes the visual tokens of every later call of `model.generate` and `model.forward`, until `detach()`.

    Args:
        model: a transformers model of a supported family (`supported_families()`), or PEFT's wrapper of one.
        method: which tokens to keep: a method, or its name as on the command line ("random:seed=3").
        keep_ratio: share of the visual tokens kept, in (0, 1]; k = max(1, round(keep_ratio * M)).
        num_keep: number of visual tokens kept, at least 1; items with fewer tokens keep all. Give one of the
            two, or none to a method that says itself how many tokens stay.
        scope: what shares one budget: each "item" (one image with all its tiles, one video), each "frame" of a video,
            or the whole "sample" (all items of a row).
        order: "sorted" feeds the kept tokens in their original order, "selection" in the order they were picked.
        positions: "compact" numbers the short prompt 0..n'-1 as the paper's code does, "original" keeps each token's
            own position; None is the family's default, or "original" for a method inside the language model.

    Returns:
        The handle. `forward` returns logits over the SHORT prompt, and
        `labels` are shortened alike; `pruning.last.keep_mask` says which columns of the original prompt stand there.

    Raises:
        UnsupportedModelError: no adapter for this model.
        PruningError: the model is pruned already, or compiled as a whole.
        ValueError: an argument is out of range, or does not apply to this model.
    """
    model = getattr(model, "get_base_model", lambda: model)()
    family = family_of(model)
    if is_wrapped(model):
        raise PruningError("the model is pruned already; leave the prune(...) block or call detach() first")
    if getattr(model, "_compiled_call_impl", None) is not None:
        raise PruningError(
            "model.compile() must not have been called, it would compile the pruning too; before pruning, write "
            "model.forward = torch.compile(model.forward)"
        )
    return Pruning(model, checked_settings(model, family, method, keep_ratio, num_keep, scope, order, positions))


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
    """Prunes a model inside a `with` block; arguments, errors and handle as for `attach`.

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
