"""A call that continues from a cache: its inputs over the whole conversation, whatever part of them the user passed."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from divprune.errors import PruningError
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.call import require_ids
from divprune.huggingface.input_pruning.cache import Past
from divprune.huggingface.input_pruning.checks import require_same_conversation
from divprune.huggingface.model_inputs import TYPE_INPUTS


def generate_inputs(inputs: dict[str, Any], mask: Tensor | None, past: Past) -> dict[str, Any]:
    """Complete the inputs of `generate`.

    As in transformers, `input_ids` are the whole conversation if the mask is as long as they are, and else only what
    the cache does not hold yet, under a mask over the whole conversation.

    Raises:
        PruningError: ids and mask do not fit the cache, or begin with another conversation.
    """
    require_ids(inputs)
    ids, width = inputs["input_ids"], past.length
    mask = torch.ones_like(ids) if mask is None else mask
    if mask.shape[1] == width + ids.shape[1]:
        return _with_cached_tokens(inputs, mask, past)
    if mask.shape[1] != ids.shape[1] or mask.shape[1] <= width:
        raise PruningError(
            f"input_ids and attention_mask must both cover the whole conversation (more than {width} tokens), or "
            f"input_ids only what the cache does not hold yet: got {ids.shape[1]} ids and a mask of {mask.shape[1]}"
        )
    require_same_conversation(ids, mask, past)
    return {**inputs, "attention_mask": mask}


def forward_inputs(inputs: dict[str, Any], past: Past) -> dict[str, Any]:
    """Complete the inputs of `forward`, whose `input_ids` are always new.

    Raises:
        PruningError: the mask covers neither the conversation nor the pruned cache with the new tokens.
    """
    require_ids(inputs)
    ids = inputs["input_ids"]
    full, pruned = past.length + ids.shape[1], past.pruned_length + ids.shape[1]
    known = past.known_mask(full)
    mask = inputs.get("attention_mask")
    mask = known if mask is None else mask
    if mask.ndim != 2 or mask.shape[1] not in (full, pruned):
        raise PruningError(
            f"attention_mask must cover the conversation and the new tokens ({full}), or the pruned cache and "
            f"the new tokens ({pruned}), got {tuple(mask.shape)}"
        )
    if mask.shape[1] != full:
        later = full - past.prompt.length
        mask = torch.cat([known[:, : past.prompt.length].to(mask), mask[:, -later:]], dim=-1)
    return _with_cached_tokens(inputs, mask, past)


def with_new_types(adapter: ModelAdapter, inputs: dict[str, Any], past: Past) -> dict[str, Any]:
    """Leave ERNIE's `moe_mm_token_type_ids` of the cached tokens out, where `generate` (before 5.23) does not."""
    name = "moe_mm_token_type_ids"
    if inputs.get(name) is None:
        return inputs
    prepare = cast(Callable[..., dict[str, Tensor]], adapter.model.prepare_inputs_for_generation)
    types: Tensor = inputs[name]
    prepared = prepare(inputs["input_ids"], next_sequence_length=1, is_first_iteration=True, **{name: types})
    new = inputs["input_ids"].shape[1] - past.pruned_length
    return inputs if prepared[name].shape[1] == 1 else {**inputs, name: types[:, -new:]}


def _with_cached_tokens(inputs: dict[str, Any], mask: Tensor, past: Past) -> dict[str, Any]:
    """Put the cached tokens in front of the new ones."""
    ids = inputs["input_ids"]
    known = past.prompt.ids[:, : past.length].to(ids.device)
    full = {**inputs, "input_ids": torch.cat([known, ids], dim=-1), "attention_mask": mask}
    for name in TYPE_INPUTS:
        values = inputs.get(name)
        if values is not None and values.shape[1] == ids.shape[1]:
            full[name] = torch.cat([_known_types(name, values, past), values], dim=-1)
    if inputs.get("labels") is not None:
        full["labels"] = torch.cat([torch.full_like(known, -100), inputs["labels"]], dim=-1)
    return full


def _known_types(name: str, values: Tensor, past: Past) -> Tensor:
    """(B, past.length) types of the cached tokens; what was generated is text."""
    types = past.prompt.types.get(name)
    known = values.new_zeros(len(values), past.length)
    if types is not None:
        known[:, : types.shape[1]] = types
    return known
