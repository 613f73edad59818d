"""`prune(model, ...)` and `attach(model, ...)`: the whole story of a call.

```
generate(**inputs)
  Call.of_generate        call.py                    read prompt, mask, cache; refuse what would be silently wrong
  whole_conversation      input_pruning/prompt.py    ids, mask and types of all turns, where a cache holds some
  encode                  encoding/encode.py         images and videos -> visual tokens, one item each
  select_items            selecting.py               the method's k of M, per item, frame or sample
  prune_prompt            input_pruning/prompt.py    fewer placeholders; ids, masks, positions gathered to match
  generating              input_pruning/generation.py  the model's own generate, on the pruned prompt
  restored                input_pruning/generation.py  the original prompt back in front of what it returned
  report                  report.py                  pruning.last
```

A method that acts inside the LLM leaves the prompt as it is (`layer_pruning/`):

```
  LayerPruning            layer_pruning/layer_call.py  encode; every visual token enters the LLM
  DroppingHooks           layer_pruning/hooks.py       select_items at decoder layer K; masks cut from there on
  lock_dropped            input_pruning/cache.py       the cache, whose layers hold different parts of the prompt
```

`generate` and `forward` are wrapped on the instance (`wrapping.py`); `generate` runs on the same modules without the
wrappers. Before the LLM, nothing of ours runs per decoded token; inside it, the hooks do. Where to look for what:
docs/architecture.md.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedModel

from divprune.config import KeepRatioLike, Newlines, Order, Positions, PruningConfig, Scope
from divprune.encoder_options import EncoderOption, encoder_option
from divprune.errors import PruningError
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.call import Call
from divprune.huggingface.encoding.encode import encode
from divprune.huggingface.fitting import require_fitting
from divprune.huggingface.input_pruning.cache import unlocked
from divprune.huggingface.input_pruning.forward import forward_arguments, forward_text, remember_forward
from divprune.huggingface.input_pruning.generation import generating, remember, restored
from divprune.huggingface.input_pruning.prompt import prune_prompt, text_prompt, whole_conversation
from divprune.huggingface.layer_pruning.layer_call import (
    LayerPruning,
    continuing,
    text_arguments,
    text_report,
    uncompiled,
)
from divprune.huggingface.report import PruningReport, continued
from divprune.huggingface.selecting import select_items
from divprune.huggingface.tested_version import warn_beyond_tested
from divprune.huggingface.wrapping import WrappedModel
from divprune.methods.base import Method


class Pruning:
    """A pruned model's handle: `last` tells what the last finished call did, `detach` undoes everything.

    Calls from several threads are made one after the other; each thread has its own `last`.
    """

    def __init__(self, adapter: ModelAdapter, config: PruningConfig) -> None:
        """Check that the config fits the model, and wrap it; use `attach` or `prune`."""
        self._adapter = adapter
        self._config = config
        self._drops_inside = require_fitting(adapter, config)
        self._of_thread = threading.local()
        self._model = WrappedModel(adapter.model, generate=self._generate, forward=self._forward)

    def __repr__(self) -> str:
        """Name the model's class and how it is pruned."""
        return f"<Pruning of {type(self._adapter.model).__name__}: {self._config}>"

    @property
    def last(self) -> PruningReport | None:
        """Report of the calling thread's last finished call; None before its first."""
        return getattr(self._of_thread, "last", None)

    @contextmanager
    def override(
        self, keep_ratio: KeepRatioLike | None = None, num_keep: int | None = None, **values: Any
    ) -> Iterator[None]:
        """Prune this thread's calls in another way for a while; 1.0 leaves an item whole.

        Args:
            keep_ratio: as for `attach`; [1.0, 0.1] for a call with two images.
            num_keep: as for `attach`.
            **values: other fields of `PruningConfig`, but for the method.

        Raises:
            ValueError: a value is out of range, or another method is wanted.
            TypeError: there is no such field, or a value has the wrong type.
        """
        if "method" in values:
            raise ValueError("method must stay what it is; detach, and attach again with another one")
        if keep_ratio is not None or num_keep is not None:
            values |= {"keep_ratio": keep_ratio, "num_keep": num_keep}
        if isinstance(values.get("encoder"), str):
            values["encoder"] = encoder_option(values["encoder"])
        config = replace(self._config, **values)
        require_fitting(self._adapter, config)
        before, self._of_thread.config = self._now, config
        try:
            yield
        finally:
            self._of_thread.config = before

    @property
    def _now(self) -> PruningConfig:
        """The calling thread's config."""
        return getattr(self._of_thread, "config", self._config)

    def detach(self) -> None:
        """Give the model back as it was, after calls of other threads have ended. A second call does nothing.

        What another library put in the place of our wrappers since stays; where it calls them, they pass the call on.
        """
        self._model.unwrap()

    @torch.no_grad()
    def _generate(self, arguments: dict[str, Any]) -> Any:
        config = self._now
        call = Call.of_generate(self._adapter, arguments)
        if call.has_media and self._drops_inside:
            return self._generate_inside(call, config)
        if call.passes_as_text:
            return self._generate_text(call, config)
        inputs = whole_conversation(call, is_generate=True)
        encoding = encode(self._adapter, config, inputs, call.past_length)
        selections = select_items(encoding.items, config)
        pruned = prune_prompt(call, inputs, config, encoding, selections)
        owner, generate = self._model.generator()
        with generating(owner, call, pruned) as arguments:
            output = generate(**arguments)
        report = pruned.report(self._adapter.model, arguments["input_ids"].shape[1])
        self._of_thread.last = continued(report, call.earlier_items, call.cache, output)
        return restored(call, pruned, arguments, output)

    def _generate_inside(self, call: Call, config: PruningConfig) -> Any:
        call = replace(call, inputs=uncompiled(call.adapter, call.inputs))
        layer_pruning = LayerPruning(call, config)
        output = layer_pruning.generate(*self._model.generator())
        self._of_thread.last = continued(layer_pruning.report(), call.earlier_items, call.cache, output)
        return output

    def _generate_text(self, call: Call, config: PruningConfig) -> Any:
        call.refuse_placeholders()
        is_fresh, report, inputs = call.is_fresh, text_report(call), text_arguments(call)
        with continuing(call):
            output = self._model.generator()[1](**inputs)
        has_ids = call.inputs.get("input_ids") is not None
        if is_fresh and has_ids and call.attention_mask is not None and not self._drops_inside:
            prompt = text_prompt(call, config, call.attention_mask)
            remember(call, prompt, output, prompt.length)
        self._of_thread.last = continued(report, call.earlier_items, call.cache, output)
        return output

    def _forward(self, arguments: dict[str, Any]) -> Any:
        config = self._now
        call = Call.of_forward(self._adapter, arguments)
        if call.has_media and self._drops_inside:
            return self._forward_inside(call, config)
        if not call.has_media and call.dropped is not None:
            with continuing(call):
                return self._model.forward(**call.inputs)
        if not call.has_media:
            call.refuse_placeholders()
            if not call.continues_pruned_prompt:
                return forward_text(call, config, self._model.forward)
        inputs = whole_conversation(call, is_generate=False)
        encoding = encode(self._adapter, config, inputs, call.past_length)
        selections = select_items(encoding.items, config)
        pruned = prune_prompt(call, inputs, config, encoding, selections)
        with unlocked(call.cache):
            output = self._model.forward(**forward_arguments(call, pruned))
        remember_forward(call, pruned, output)
        report = pruned.report(self._adapter.model, pruned.gather_index.shape[1])
        self._of_thread.last = continued(report, call.earlier_items, call.cache, output)
        return output

    def _forward_inside(self, call: Call, config: PruningConfig) -> Any:
        layer_pruning = LayerPruning(call, config)
        output = layer_pruning.forward(self._model.forward)
        self._of_thread.last = continued(layer_pruning.report(), call.earlier_items, call.cache, output)
        return output


def attach(
    model: PreTrainedModel,
    method: Method | str | PruningConfig = "divprune",
    *,
    keep_ratio: KeepRatioLike | None = None,
    num_keep: int | None = None,
    scope: Scope = "item",
    order: Order = "sorted",
    positions: Positions | None = None,
    newlines: Newlines = "budget",
    encoder: EncoderOption | str | None = None,
    **unknown: Any,
) -> Pruning:
    """Prune the visual tokens of every later call of `model.generate` and `model.forward`, until `detach()`.

    Args:
        model: a transformers model of a supported family (`supported_families()`), or PEFT's wrapper of one.
        method: which tokens to keep: a method, or its name as on the command line ("random:seed=3"), or a whole
            `PruningConfig` instead of all that follows.
        keep_ratio: fraction of the visual tokens kept, in (0, 1]; k = max(1, round(keep_ratio * M)). Or one by
            modality, {"image": 0.2, "video": 0.05} (another one stays whole), or one for each item of a call, in the
            order of the prompts.
        num_keep: number of visual tokens kept, at least 1; items with fewer tokens keep all. With neither of the two,
            the method says itself how many tokens stay, or 0.098 of them are kept, as in the paper.
        scope: what shares one budget: each "item" (one image with all its tiles, one video), each "frame" of a video,
            each "tile" of an image, or the whole "sample" (all items of a row). Each frame or tile keeps `num_keep`;
            under "tile" a `keep_ratio` is of the image, and what it keeps is dealt out to its tiles in equal numbers,
            the remainder to the first.
        order: "sorted" feeds the kept tokens in their original order, "selection" in the order they were picked.
        positions: "original" keeps each token's own position, "compact" numbers the pruned prompt 0..n'-1 as the
            paper's code does; None is "original" wherever the family takes position ids.
        newlines: what becomes of image newline tokens: "budget" treats them as any other token; "keep" keeps them all
            and "rows" those whose row keeps a token, in both cases on top of `keep_ratio` or `num_keep`.
        encoder: a way to encode less, "tome:r=8" or "pixel-dedup": the vision encoder leaves fewer than M tokens of an
            image, which are what the method selects from and what `keep_ratio` is a fraction of.
        **unknown: refused; parameters of a method follow its name.

    Returns:
        The handle. `forward` returns logits over the PRUNED prompt, and `labels` are gathered alike;
        `pruning.last.keep_mask` says which tokens of the original prompt stand there.

    Raises:
        UnsupportedModelError: no adapter for this model, or its layers cannot lose tokens half-way.
        PruningError: the model is pruned already, or compiled as a whole.
        CalibrationError: the method was calibrated on another model.
        ValueError: an argument is out of range, or does not apply to this model or method.
        TypeError: an argument has the wrong type, or is a method's parameter.
    """
    if unknown:
        spec = ",".join(f"{name}={value}" for name, value in unknown.items())
        name = method if isinstance(method, str) else getattr(method, "name", "method")
        raise TypeError(f"{', '.join(unknown)} must be a parameter of the method, as in {f'{name}:{spec}'!r}")
    model = getattr(model, "get_base_model", lambda: model)()
    adapter = ModelAdapter.of(model)
    if getattr(model, "_compiled_call_impl", None) is not None:
        raise PruningError(
            "model.compile() must not have been called, it would compile the pruning too; before pruning, write "
            "model.forward = torch.compile(model.forward)"
        )
    values = {"scope": scope, "order": order, "positions": positions, "newlines": newlines, "encoder": encoder}
    config = PruningConfig.parse(method, keep_ratio=keep_ratio, num_keep=num_keep, **values)
    return Pruning(adapter, config)


@contextmanager
def prune(
    model: PreTrainedModel,
    method: Method | str | PruningConfig = "divprune",
    *,
    keep_ratio: KeepRatioLike | None = None,
    num_keep: int | None = None,
    scope: Scope = "item",
    order: Order = "sorted",
    positions: Positions | None = None,
    newlines: Newlines = "budget",
    encoder: EncoderOption | str | None = None,
    **unknown: Any,
) -> Iterator[Pruning]:
    """Prune a model inside a `with` block; arguments, errors and handle as for `attach`.

    Examples:
        >>> with prune(model, DivPrune(), keep_ratio=0.098) as pruning:
        ...     output = model.generate(**inputs, max_new_tokens=32)
        >>> pruning.last.num_kept
        56
    """
    options: dict[str, Any] = {"scope": scope, "order": order, "positions": positions, "newlines": newlines, **unknown}
    pruning = attach(model, method, keep_ratio=keep_ratio, num_keep=num_keep, encoder=encoder, **options)
    try:
        yield pruning
    finally:
        pruning.detach()


warn_beyond_tested()
