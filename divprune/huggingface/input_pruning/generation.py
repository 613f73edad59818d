"""What `generate` needs around a pruned prompt: mask, length limits, what the user hands in, the returned sequences.

Streamers, stopping criteria and logits processors get ids that begin with the original prompt, and the returned
sequences do too. Only where there are such is anything of ours called per decoded token.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
    PreTrainedModel,
    StoppingCriteriaList,
)
from transformers.generation.stopping_criteria import MaxLengthCriteria
from transformers.generation.streamers import BaseStreamer
from transformers.utils.generic import ModelOutput

from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.call import Call
from divprune.huggingface.encoding.encoder_output import whole_rows_repeated
from divprune.huggingface.gather_tokens import restore_sequences
from divprune.huggingface.input_pruning.cache import CachedPrompt, Past, keep_prompt, unlocked
from divprune.huggingface.input_pruning.checks import has_gaps, require_typed_blocks, require_unpacked_positions
from divprune.huggingface.input_pruning.continuation import with_new_types
from divprune.huggingface.input_pruning.prompt import PrunedPrompt

_LIMITS = ("max_length", "max_new_tokens", "min_length", "min_new_tokens")


@contextmanager
def generating(owner: PreTrainedModel, call: Call, pruned: PrunedPrompt) -> Iterator[dict[str, Any]]:
    """Prepare a model for generating from a pruned prompt; as before on exit.

    Args:
        owner: the model whose `generate` will run.
        call: the call that was pruned.
        pruned: its pruned prompt.

    Yields:
        The arguments to call `generate` with.

    Raises:
        PruningError: on a kept cache, images or positions that this model or this transformers would misplace.
    """
    adapter, past = call.adapter, call.past
    settings = {name: adapter.generation_setting(pruned.inputs, name) for name in ("use_cache", *_LIMITS)}
    is_unmasked = settings["use_cache"] is False or adapter.has_flash_attention
    inputs = _with_living_mask(adapter, pruned.inputs, past, is_unmasked)
    if past is not None:
        inputs = with_new_types(adapter, inputs, past)
        if pruned.row_sizes:
            require_typed_blocks(adapter, inputs)
    pruned_length = inputs["input_ids"].shape[1]
    _shift_lengths(settings, inputs, call.input_ids.shape[1] - pruned_length)
    shown = original_prompt_shown(owner, inputs, call.input_ids, pruned_length)
    usable: AbstractContextManager[None] = nullcontext() if call.cache is None else unlocked(call.cache)
    with usable, whole_rows_repeated(owner, pruned.row_sizes), shown as arguments:
        yield arguments


def restored(call: Call, pruned: PrunedPrompt, arguments: dict[str, Any], output: Any) -> Any:
    """Put the original prompt back into what `generate` returned, and remember it on the cache.

    Args:
        call: the call that was pruned.
        pruned: its pruned prompt.
        arguments: what `generate` was called with.
        output: (B * n, L' + new) sequences, or the model output that holds them.
    """
    pruned_length, cached = arguments["input_ids"].shape[1], pruned.cached
    if pruned_length > cached.gather_index.shape[1]:  # a padded token keeps the mask alive
        padding = (pruned_length - cached.gather_index.shape[1], 0)
        cached = replace(cached, gather_index=functional.pad(cached.gather_index, padding, value=-1))
    remember(call, cached, output, pruned_length)
    if isinstance(output, Tensor):
        return restore_sequences(output, call.input_ids, pruned_length)
    if isinstance(output, ModelOutput):
        output["sequences"] = restore_sequences(output["sequences"], call.input_ids, pruned_length)
    return output


def remember(call: Call, prompt: CachedPrompt, output: Any, pruned_length: int) -> None:
    """Note a prompt on the cache that `generate` filled; `output` still begins with its `pruned_length` tokens."""
    is_beam_search = (call.adapter.generation_setting(call.inputs, "num_beams") or 1) > 1
    sequences: Tensor = output if isinstance(output, Tensor) else output["sequences"]
    rows = prompt.repeated(len(sequences)) if len(sequences) % len(prompt.ids) == 0 else prompt
    ids = torch.cat([rows.ids.to(sequences.device), sequences[:, pruned_length:]], dim=-1)
    keep_prompt(replace(rows, ids=ids, has_ordered_rows=not is_beam_search), call.cache, output)


def _shift_lengths(settings: Mapping[str, Any], inputs: dict[str, Any], dropped: int) -> None:
    """Move `max_length` and `min_length`, which count the prompt, by the dropped tokens; changes `inputs`."""
    for name, new_tokens in (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")):
        limit = settings[name]
        if not limit or settings[new_tokens] is not None:
            continue
        if inputs.get(name) is None and inputs.get("generation_config") is not None:
            inputs["generation_config"] = copy.deepcopy(inputs["generation_config"])
            setattr(inputs["generation_config"], name, max(limit - dropped, 0))
        else:
            inputs[name] = max(limit - dropped, 0)


def _with_living_mask(
    adapter: ModelAdapter, inputs: dict[str, Any], past: Past | None, is_unmasked: bool
) -> dict[str, Any]:
    """Add one padded token where positions with gaps would be read as packed sequences: attention `is_unmasked`.

    `generate` drops a mask of ones. Without a mask and without a cache (or under flash attention) transformers takes a
    gap in 1-D position ids for the border of two sequences and stops attention there. One padded token keeps the mask.
    """
    positions = inputs.get("position_ids")
    if past is not None:
        require_unpacked_positions(adapter, None if positions is None else positions[..., past.pruned_length :])
        return inputs
    if not (is_unmasked and bool(inputs["attention_mask"].all()) and has_gaps(positions)):
        return inputs
    shape = inputs["input_ids"].shape
    per_token = [name for name, value in inputs.items() if isinstance(value, Tensor) and value.shape == shape]
    return inputs | {name: functional.pad(inputs[name], (1, 0)) for name in per_token}


PROMPT_READERS = (NoRepeatNGramLogitsProcessor, PrefixConstrainedLogitsProcessor)
"""Processors that `generate` makes by itself and that read more of the prompt than which ids it holds."""


class OnOriginalPrompt:
    """A logits processor or stopping criterion that gets the ids with the original prompt in front."""

    def __init__(self, inner: Any, prompt_ids: Tensor, pruned_length: int) -> None:
        """Wrap `inner`; `prompt_ids` (B, L) stand for the first `pruned_length` tokens."""
        self._inner = inner
        self._prompt_ids = prompt_ids
        self._pruned_length = pruned_length

    def __call__(self, input_ids: Tensor, scores: Any) -> Any:
        """Call `inner`."""
        return self._inner(restore_sequences(input_ids, self._prompt_ids, self._pruned_length), scores)

    def __getattr__(self, name: str) -> Any:
        """Everything else is as it was, such as the `eos_token_id` of a criterion."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._inner, name)


class OriginalPromptStreamer(BaseStreamer):
    """Shows a streamer the original prompt first; everything later goes straight through."""

    def __init__(self, inner: BaseStreamer, prompt_ids: Tensor) -> None:
        """Wrap `inner`."""
        self._inner = inner
        self._prompt_ids = prompt_ids

    def put(self, value: Tensor) -> None:
        """Take the prompt."""
        self.__dict__["put"] = self._inner.put
        self._inner.put(self._prompt_ids.repeat_interleave(len(value) // len(self._prompt_ids), dim=0).cpu())

    def end(self) -> None:
        """End the stream."""
        self._inner.end()


@contextmanager
def original_prompt_shown(
    model: PreTrainedModel, inputs: dict[str, Any], prompt_ids: Tensor, pruned_length: int
) -> Iterator[dict[str, Any]]:
    """Show the original prompt to what the user passed.

    Args:
        model: the model; it is as before on exit.
        inputs: the arguments of the call on the pruned prompt.
        prompt_ids: (B, L) the prompt as the user gave it.
        pruned_length: L', tokens of the pruned prompt.

    Yields:
        The arguments to call with.
    """
    given = {name: list(inputs.get(name) or []) for name in ("logits_processor", "stopping_criteria")}

    def shown(inner: Any) -> Any:
        if isinstance(inner, MaxLengthCriteria):
            return MaxLengthCriteria(inner.max_length - prompt_ids.shape[1] + pruned_length)
        return OnOriginalPrompt(inner, prompt_ids, pruned_length)

    def processors(*args: Any, **kwargs: Any) -> LogitsProcessorList:
        kwargs["encoder_input_ids"] = prompt_ids
        made = build["_get_logits_processor"](*args, **kwargs)
        is_reader = [isinstance(one, PROMPT_READERS) or one in given["logits_processor"] for one in made]
        return LogitsProcessorList(shown(one) if reads else one for one, reads in zip(made, is_reader, strict=True))

    def criteria(*args: Any, **kwargs: Any) -> StoppingCriteriaList:
        made = build["_get_stopping_criteria"](*args, **kwargs)
        return StoppingCriteriaList(shown(one) if one in given["stopping_criteria"] else one for one in made)

    # The lists are complete only inside `generate`, where a processor of the user may replace one of the settings'.
    build: dict[str, Callable[..., Any]] = {
        name: getattr(model, name) for name in ("_get_logits_processor", "_get_stopping_criteria")
    }
    before = {name: model.__dict__[name] for name in build if name in model.__dict__}
    model.__dict__.update({"_get_logits_processor": processors, "_get_stopping_criteria": criteria})
    streamer = inputs.get("streamer")
    try:
        yield inputs if streamer is None else inputs | {"streamer": OriginalPromptStreamer(streamer, prompt_ids)}
    finally:
        for name in build:
            del model.__dict__[name]
        model.__dict__.update(before)
