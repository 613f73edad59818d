"""`prune(model, ...)` and `attach(model, ...)`: the whole story.

The model's `generate` and `forward` are wrapped on the instance. A call with pictures is encoded by the model's own
encoder, the method chooses, the prompt is shortened, and the original `generate` runs on the short prompt with the
kept tokens as `mm_encoder_outputs`; then the original prompt is put back into what it returns. While `generate` runs,
`forward` is the model's own again: nothing of ours runs per decoded token. A method that acts inside the language model
leaves the prompt as it is; hooks on the decoder layers drop the tokens half-way, for the time of the call.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from divprune.errors import PruningError
from divprune.huggingface.arguments import checked_settings
from divprune.huggingface.cache_size import with_cache_size
from divprune.huggingface.choose import Scope
from divprune.huggingface.dropped import dropped_prompt
from divprune.huggingface.encode import has_visual_inputs
from divprune.huggingface.families import Positions, family_of
from divprune.huggingface.features import whole_rows_repeated
from divprune.huggingface.generation import (
    full_attention_mask,
    keep_mask_alive,
    mark_short_cache,
    refuse_forward_step,
    refuse_unsupported,
    restore_output,
    shift_lengths,
)
from divprune.huggingface.inside import (
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
from divprune.huggingface.report import PruningReport
from divprune.huggingface.shorten import Order, Settings, require_one_prompt, shorten_call
from divprune.methods.base import Method

MARK = "__divprune__"


class Pruning:
    """A pruned model's handle: `last` tells what the last finished call did, `detach` undoes everything.

    Attributes:
        last: report of the last finished call; None before the first.
    """

    def __init__(self, model: PreTrainedModel, settings: Settings) -> None:
        """Wraps the model; use `attach` or `prune`."""
        self.last: PruningReport | None = None
        self._model: PreTrainedModel | None = model
        self._family = family_of(model)
        self._settings = settings
        # What stood on the instance before us, such as another library's wrapper; usually nothing.
        self._before = {name: model.__dict__[name] for name in ("generate", "forward") if name in model.__dict__}
        self._generate = cast(Callable[..., Any], model.generate)
        self._forward: Callable[..., Any] = model.forward
        self._wrappers = {"generate": self._wrapped_generate(), "forward": self._wrapped_forward()}
        model.__dict__.update(self._wrappers)

    def detach(self) -> None:
        """Gives the model back as it was. A second call does nothing."""
        if self._model is not None:
            self._restore(self._model, *self._wrappers)
        self._model = None

    def _restore(self, model: PreTrainedModel, *names: str) -> None:
        for name in names:
            model.__dict__.pop(name, None)
            if name in self._before:
                model.__dict__[name] = self._before[name]

    def _attached_model(self) -> PreTrainedModel:
        if self._model is None:
            raise PruningError("this pruning handle is detached; attach the model again")
        return self._model

    @contextmanager
    def _own_forward(self) -> Iterator[None]:
        """Lifts the forward wrapper."""
        model = self._attached_model()
        self._restore(model, "forward")
        try:
            yield
        finally:
            model.__dict__["forward"] = self._wrappers["forward"]

    def _wrapped_generate(self) -> Callable[..., Any]:
        signature = inspect.signature(self._generate)

        @functools.wraps(self._generate)
        @torch.no_grad()
        def generate(*args: Any, **kwargs: Any) -> Any:
            inputs = dict(signature.bind(*args, **kwargs).arguments)
            inputs |= inputs.pop("kwargs", {})
            with self._own_forward():
                return self._generate_pruned(inputs)

        setattr(generate, MARK, self)
        return generate

    def _generate_pruned(self, inputs: dict[str, Any]) -> Any:
        model = self._attached_model()
        refuse_unsupported(model, inputs)
        if "inputs" in inputs:
            inputs["input_ids"] = inputs.pop("inputs")
        mask = full_attention_mask(model, inputs)
        if not has_visual_inputs(inputs):
            return self._generate_text(model, inputs, mask)
        if self._settings.method.layers:
            prepare_generation(model, inputs)
            return self._run_inside(model, inputs, cast(Tensor, mask), partial(generate_inside, self._generate))
        require_one_prompt(inputs)
        prompt_ids: Tensor = inputs["input_ids"]
        call = shorten_call(model, self._family, self._settings, inputs, cast(Tensor, mask))
        short = keep_mask_alive(model, call.inputs)
        short_length = short["input_ids"].shape[1]
        shift_lengths(model, short, prompt_ids.shape[1] - short_length)
        with whole_rows_repeated(model, call.row_sizes):
            result = self._generate(**short)
        result = restore_output(result, prompt_ids, short_length)
        mark_short_cache(inputs, result)
        self.last = with_cache_size(call.report, model, prompt_ids.shape[1], short_length)
        return result

    def _generate_text(self, model: PreTrainedModel, inputs: dict[str, Any], mask: Tensor | None) -> Any:
        dropped = dropped_prompt(inputs.get("past_key_values"))
        if dropped is not None:
            prepare_generation(model, inputs)
        report = text_report(model, mask, dropped)
        inputs = with_continued_positions(dropped, inputs, mask)
        with continuing(model, dropped, inputs):
            result = self._generate(**inputs)
        self.last = report
        return result

    def _run_inside(
        self, model: PreTrainedModel, inputs: dict[str, Any], mask: Tensor, run: Callable[[InsideCall], Any]
    ) -> Any:
        call = inside_call(model, self._family, self._settings, inputs, mask)
        with whole_rows_repeated(model, call.row_sizes):
            result = run(call)
        self.last = call.report(model)
        return result

    def _wrapped_forward(self) -> Callable[..., Any]:
        signature = inspect.signature(self._forward)

        @functools.wraps(self._forward)
        def forward(*args: Any, **kwargs: Any) -> Any:
            inputs = dict(signature.bind(*args, **kwargs).arguments)
            inputs |= inputs.pop("kwargs", {})
            return self._forward_pruned(inputs)

        setattr(forward, MARK, self)
        return forward

    def _forward_pruned(self, inputs: dict[str, Any]) -> Any:
        model = self._attached_model()
        if not has_visual_inputs(inputs):
            refuse_forward_step(inputs, self._settings.positions or self._family.positions)
            with continuing(model, dropped_prompt(inputs.get("past_key_values")), inputs):
                return self._forward(**inputs)
        if self._settings.method.layers:
            run = partial(forward_inside, model, self._forward)
            return self._run_inside(model, inputs, forward_mask(inputs), run)
        require_one_prompt(inputs)
        mask = inputs.get("attention_mask")
        mask = torch.ones_like(inputs["input_ids"]) if mask is None else mask
        call = shorten_call(model, self._family, self._settings, inputs, mask)
        result = self._forward(**call.inputs)
        mark_short_cache(inputs, result)
        self.last = with_cache_size(call.report, model, mask.shape[1], call.source.shape[1])
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
        model: a transformers model of a supported family (`supported_families()`).
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
        The handle. Its model is used from one thread at a time. `forward` returns logits over the SHORT prompt, and
        `labels` are shortened alike; `pruning.last.keep_mask` says which columns of the original prompt stand there.

    Raises:
        UnsupportedModelError: no adapter for this model.
        PruningError: the model is pruned already.
        ValueError: an argument is out of range, or does not apply to this model.
    """
    family = family_of(model)
    if any(hasattr(model.__dict__.get(name), MARK) for name in ("generate", "forward")):
        raise PruningError("the model is pruned already; leave the prune(...) block or call detach() first")
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
