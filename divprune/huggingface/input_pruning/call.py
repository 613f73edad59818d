"""A whole call at layer 0: shorten -> the model's own `generate` or `forward` -> put back what the user expects.

Caches remember the prompt they hold, so that a later turn continues from it in the user's own columns.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from divprune.huggingface.cache_names import cache_in
from divprune.huggingface.cache_size import with_cache_size
from divprune.huggingface.encoding.encode import has_visual_inputs
from divprune.huggingface.encoding.encoder_output import whole_rows_repeated
from divprune.huggingface.families.registry import Family
from divprune.huggingface.gather_columns import compact_positions
from divprune.huggingface.input_pruning.cache import CachedPrompt, Past, keep_prompt, past_of, unlocked
from divprune.huggingface.input_pruning.continuation import (
    TYPE_INPUTS,
    forward_inputs,
    generate_inputs,
    require_typed_blocks,
    with_new_types,
)
from divprune.huggingface.input_pruning.generation import (
    generation_setting,
    keep_mask_alive,
    restore_output,
    shift_lengths,
)
from divprune.huggingface.input_pruning.prompt_view import original_prompt_shown
from divprune.huggingface.input_pruning.shorten import Settings, require_ids, require_one_prompt, shorten_call
from divprune.huggingface.report import PruningReport

Call = Callable[..., Any]


def generate_short(
    model: PreTrainedModel,
    family: Family,
    settings: Settings,
    generate: Call,
    inputs: dict[str, Any],
    attention_mask: Tensor | None,
) -> tuple[Any, PruningReport]:
    """A call of `generate` with pictures, or one that continues from a shortened prompt.

    Args:
        model: the model.
        family: its family.
        settings: how to prune.
        generate: the model's own `generate`.
        inputs: the call's arguments.
        attention_mask: (B, L) over the ids, or over the whole conversation.

    Returns:
        What `generate` returns, the user's prompt in front of each sequence; and the report.
    """
    require_ids(inputs)
    user_ids: Tensor = inputs["input_ids"]
    cache = cache_in(inputs)
    past = past_of(cache, len(user_ids))
    if past is None:
        require_one_prompt(inputs)
        whole = {**inputs, "attention_mask": attention_mask}
    else:
        whole = generate_inputs(inputs, attention_mask, past)
    call = shorten_call(model, family, settings, whole, whole["attention_mask"], past)
    short = keep_mask_alive(model, call.inputs, past)
    if past is not None:
        short = with_new_types(model, short, past)
        if call.row_sizes:
            require_typed_blocks(model, family, short)
    short_length = short["input_ids"].shape[1]
    shift_lengths(model, short, user_ids.shape[1] - short_length)
    shown = original_prompt_shown(model, short, user_ids, short_length)
    with unlocked(cache), whole_rows_repeated(model, call.row_sizes), shown as arguments:
        result = generate(**arguments)
    prompt = call.prompt
    if short_length > prompt.source.shape[1]:  # a padded column keeps the mask alive
        padded = torch.nn.functional.pad(prompt.source, (short_length - prompt.source.shape[1], 0), value=-1)
        prompt = replace(prompt, source=padded)
    _remember(model, inputs, result, short_length, prompt)
    report = with_cache_size(call.report, model, prompt.length, short_length)
    return restore_output(result, user_ids, short_length), report


def remember_text(
    model: PreTrainedModel, family: Family, settings: Settings, inputs: Mapping[str, Any], result: Any, mask: Tensor
) -> None:
    """Notes on a fresh cache what a call of `generate` without pictures put there, for a later turn with some.

    Args:
        model: the model.
        family: its family.
        settings: how to prune.
        inputs: the call's arguments.
        result: what it returned.
        mask: (B, L) attention mask of the prompt.
    """
    prompt = _text_prompt(family, settings, inputs, mask)
    _remember(model, inputs, result, prompt.length, prompt)


def forward_short(
    model: PreTrainedModel, family: Family, settings: Settings, forward: Call, inputs: dict[str, Any]
) -> tuple[Any, PruningReport | None]:
    """A call of `forward`; arguments as for `generate_short`.

    Returns:
        What `forward` returns, over the shortened prompt; and the report, None for text that passes untouched.
    """
    ids, cache = inputs.get("input_ids"), cache_in(inputs)
    past = None if ids is None else past_of(cache, len(ids))
    if not has_visual_inputs(inputs) and (past is None or not past.prompt.is_short):
        return _forward_text(family, settings, forward, inputs, past), None
    if past is None:
        require_one_prompt(inputs)
        mask = inputs.get("attention_mask")
        whole = {**inputs, "attention_mask": torch.ones_like(inputs["input_ids"]) if mask is None else mask}
    else:
        whole = forward_inputs(inputs, past)
    call = shorten_call(model, family, settings, whole, whole["attention_mask"], past)
    with unlocked(cache):
        result = forward(**_forward_arguments(family, call.inputs, call.prompt, past))
    if call.prompt.is_short or bool(whole["attention_mask"].all()):
        _keep(cache, result, call.prompt)
    return result, with_cache_size(call.report, model, call.prompt.length, call.source.shape[1])


def _forward_text(family: Family, settings: Settings, forward: Call, inputs: dict[str, Any], past: Past | None) -> Any:
    """Text passes untouched; a cache without padding remembers it, since then all agree on the positions."""
    ids, mask, cache = inputs.get("input_ids"), inputs.get("attention_mask"), cache_in(inputs)
    is_fresh = cache is None or cache.get_seq_length() == 0
    result = forward(**inputs)
    is_padded = mask is not None and not bool(mask.all())
    if ids is None or is_padded or (past is None and not is_fresh):
        return result
    if past is None:
        prompt = _text_prompt(family, settings, inputs, torch.ones_like(ids))
    else:
        prompt = replace(past.prompt, ids=torch.cat([past.prompt.ids[:, : past.length], ids], dim=-1))
    _keep(cache, result, prompt)
    return result


def _forward_arguments(
    family: Family, short: dict[str, Any], prompt: CachedPrompt, past: Past | None
) -> dict[str, Any]:
    """The short inputs as `forward` takes them: new tokens only, and with positions that know the padding."""
    arguments = dict(short)
    if prompt.is_short and "position_ids" not in arguments:
        arguments["position_ids"] = compact_positions(short["attention_mask"])
    if "position_ids" in arguments and arguments["position_ids"].ndim == 2 and not prompt.positions_given:
        arguments["position_ids"] = arguments["position_ids"] + family.first_position
    if past is not None:
        for name in ("input_ids", "position_ids", "labels", "moe_mm_token_type_ids"):
            if name in arguments:
                arguments[name] = arguments[name][..., past.short_length :]
    return arguments


def _text_prompt(family: Family, settings: Settings, inputs: Mapping[str, Any], mask: Tensor) -> CachedPrompt:
    ids: Tensor = inputs["input_ids"]
    return CachedPrompt(
        ids=ids,
        attention_mask=mask,
        source=torch.arange(mask.shape[1], device=mask.device).expand_as(mask),
        types={name: inputs[name] for name in TYPE_INPUTS if isinstance(inputs.get(name), Tensor)},
        positions=settings.positions or family.positions,
        positions_given=inputs.get("position_ids") is not None,
        next_position=mask.bool().sum(dim=-1) if family.positions == "original" else None,
    )


def _remember(
    model: PreTrainedModel, inputs: Mapping[str, Any], result: Any, short_length: int, prompt: CachedPrompt
) -> None:
    """Notes a prompt on the cache that `generate` filled; `result` still begins with the short prompt."""
    sequences: Tensor = result if isinstance(result, Tensor) else result["sequences"]
    rows = prompt.repeated(len(sequences)) if len(sequences) % len(prompt.ids) == 0 else prompt
    ids = torch.cat([rows.ids.to(sequences.device), sequences[:, short_length:]], dim=-1)
    is_beam_search = (generation_setting(model, dict(inputs), "num_beams") or 1) > 1
    _keep(cache_in(inputs), result, replace(rows, ids=ids, has_ordered_rows=not is_beam_search))


def _keep(cache: Any, result: Any, prompt: CachedPrompt) -> None:
    returned = cache_in(result) if isinstance(result, dict) else None
    for holder in (cache, returned):
        if holder is not None:
            keep_prompt(holder, prompt)
