"""A call that continues from a cache: its inputs in full columns, whatever part of them the user passed."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from divprune.errors import PruningError
from divprune.huggingface.families.registry import Family
from divprune.huggingface.input_pruning.cache import Past

TYPE_INPUTS = ("token_type_ids", "mm_token_type_ids", "moe_mm_token_type_ids")


def generate_inputs(inputs: dict[str, Any], mask: Tensor | None, past: Past) -> dict[str, Any]:
    """Inputs of `generate` in full columns.

    As in transformers, `input_ids` are the whole conversation if the mask is as long as they are, and else only what
    the cache does not hold yet, under a mask over the whole conversation.

    Raises:
        PruningError: ids and mask do not fit the cache, or begin with another conversation.
    """
    ids, width = _ids_of(inputs), past.length
    mask = torch.ones_like(ids) if mask is None else mask
    if mask.shape[1] == width + ids.shape[1]:
        return _with_cached_columns(inputs, mask, past)
    if mask.shape[1] != ids.shape[1] or mask.shape[1] <= width:
        raise PruningError(
            f"input_ids and attention_mask must both cover the whole conversation (more than {width} columns), or "
            f"input_ids only what the cache does not hold yet: got {ids.shape[1]} ids and {mask.shape[1]} columns"
        )
    _require_same_conversation(ids, mask, past)
    return {**inputs, "attention_mask": mask}


def forward_inputs(inputs: dict[str, Any], past: Past) -> dict[str, Any]:
    """Inputs of `forward`, whose `input_ids` are always new, in full columns.

    Raises:
        PruningError: the mask covers neither the conversation nor the short cache with the new tokens.
    """
    ids = _ids_of(inputs)
    full, short = past.length + ids.shape[1], past.short_length + ids.shape[1]
    known = past.known_mask(full)
    mask = inputs.get("attention_mask")
    mask = known if mask is None else mask
    if mask.ndim != 2 or mask.shape[1] not in (full, short):
        raise PruningError(
            f"attention_mask must cover the conversation and the new tokens ({full} columns), or the pruned cache and "
            f"the new tokens ({short} columns), got {tuple(mask.shape)}"
        )
    if mask.shape[1] != full:
        later = full - past.prompt.length
        mask = torch.cat([known[:, : past.prompt.length].to(mask), mask[:, -later:]], dim=-1)
    return _with_cached_columns(inputs, mask, past)


def require_placeable_padding(model: PreTrainedModel, family: Family, new_mask: Tensor) -> None:
    """Refuses padding between cache and new tokens where it would be counted, or carried along.

    Args:
        model: the model.
        family: its family.
        new_mask: (B, n) attention mask of the columns that the cache does not hold.

    Raises:
        PruningError: there is such padding, and layers with a sliding window, linear attention or a convolution, or a
            `generate` that counts positions by columns.
    """
    text = model.config.get_text_config()
    types = getattr(text, "layer_types", None) or ()
    if not types and getattr(text, "sliding_window", None) is not None:  # as transformers infers it
        types = ("sliding_attention",)
    reasons = [f"layers of type {name}" for name in sorted(set(types) - {"full_attention"})]
    if not family.takes_positions:
        reasons.append("a generate() that counts it as positions")
    if reasons and not bool(new_mask.all()):
        raise PruningError(
            "on a kept cache all rows of a batch must grow by equally many tokens, dropped ones not counted: this "
            f"model has {', '.join(reasons)}, which padding between two turns may change; pass the whole "
            "conversation with its pictures and without the cache"
        )


def require_placeable_pictures(model: PreTrainedModel, family: Family, new_ids: Tensor) -> None:
    """Refuses new pictures on a kept cache of a family that cannot place them there.

    Args:
        model: the model.
        family: its family.
        new_ids: (B, n) ids that the cache does not hold.

    Raises:
        PruningError: there are placeholders among them.
    """
    ids = [getattr(model.config, family.placeholders[kind]) for kind in family.kinds]
    if family.fresh_pictures_only and bool(torch.isin(new_ids, torch.tensor(ids, device=new_ids.device)).any()):
        raise PruningError(
            f"the cache must be empty when pictures come in for {family.name!r}: {family.fresh_pictures_only}; "
            "pass the whole conversation with its pictures and without the cache"
        )


def require_typed_blocks(model: PreTrainedModel, family: Family, short: dict[str, Any]) -> None:
    """Refuses new pictures on a kept cache where the model would look for them in the wrong columns.

    Gemma 3 lets the tokens of a picture see each other both ways and finds them by `token_type_ids` over the whole
    conversation; before transformers 5.23 `generate` hands it those of the new columns only.

    Args:
        model: the model.
        family: its family.
        short: inputs of the shortened call.
    """
    types = short.get("token_type_ids")
    if not family.has_typed_blocks or types is None:
        return
    prepare = cast(Callable[..., dict[str, Tensor]], model.prepare_inputs_for_generation)
    prepared = prepare(short["input_ids"], next_sequence_length=1, token_type_ids=types, is_first_iteration=True)
    if prepared["token_type_ids"].shape != types.shape:
        raise PruningError(
            "the cache must be empty when pictures come in: this version of transformers places the pictures of "
            f"{family.name!r} wrongly on a kept cache, pruned or not; update it, or pass the whole conversation "
            "without the cache"
        )


def with_new_types(model: PreTrainedModel, short: dict[str, Any], past: Past) -> dict[str, Any]:
    """Leaves ERNIE's `moe_mm_token_type_ids` of the cached columns out, where `generate` (before 5.23) does not."""
    name = "moe_mm_token_type_ids"
    if short.get(name) is None:
        return short
    prepare = cast(Callable[..., dict[str, Tensor]], model.prepare_inputs_for_generation)
    types: Tensor = short[name]
    prepared = prepare(short["input_ids"], next_sequence_length=1, is_first_iteration=True, **{name: types})
    new = short["input_ids"].shape[1] - past.short_length
    return short if prepared[name].shape[1] == 1 else {**short, name: types[:, -new:]}


def _ids_of(inputs: dict[str, Any]) -> Tensor:
    ids: Tensor | None = inputs.get("input_ids")
    if inputs.get("inputs_embeds") is not None or ids is None:
        raise PruningError("input_ids must be given on a cache that holds a pruned prompt, got inputs_embeds")
    return ids


def _require_same_conversation(ids: Tensor, mask: Tensor, past: Past) -> None:
    known = past.prompt.ids[:, : past.length].to(ids.device)
    same = (ids[:, : known.shape[1]] == known) | (mask[:, : known.shape[1]] == 0)
    old_mask = past.prompt.attention_mask.to(mask.device).bool()
    padded_alike = torch.equal(mask[:, : old_mask.shape[1]].bool(), old_mask)
    if not (padded_alike and bool(same.all())):
        raise PruningError(
            f"input_ids must begin with the {past.length} columns that the cache holds, padded as they were; got "
            "another conversation, or the new tokens alone without the attention_mask of the whole conversation"
        )


def _with_cached_columns(inputs: dict[str, Any], mask: Tensor, past: Past) -> dict[str, Any]:
    """New tokens with the cached columns in front."""
    ids = _ids_of(inputs)
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
    """(B, past.length) types of the cached columns; what was generated is text."""
    types = past.prompt.types.get(name)
    known = values.new_zeros(len(values), past.length)
    if types is not None:
        known[:, : types.shape[1]] = types
    return known
