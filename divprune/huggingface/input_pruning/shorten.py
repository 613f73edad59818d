"""One call's inputs in, the same call on a shorter prompt out: encode -> choose -> shorten."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from divprune.budget import Budget
from divprune.errors import PruningError
from divprune.huggingface.cache_names import cache_in
from divprune.huggingface.encoding.encode import Encoding, VisualItem, require_no_placeholders
from divprune.huggingface.encoding.encoder_output import take_tokens
from divprune.huggingface.encoding.method_inputs import encode_for
from divprune.huggingface.families.registry import Family, Positions
from divprune.huggingface.gather_columns import PADDING, reorder_columns, source_columns, take_columns
from divprune.huggingface.input_pruning.cache import CachedPrompt, Past, present_columns
from divprune.huggingface.input_pruning.continuation import (
    TYPE_INPUTS,
    require_placeable_padding,
    require_placeable_pictures,
)
from divprune.huggingface.input_pruning.merging import with_merged_tokens
from divprune.huggingface.input_pruning.positions import (
    continued_positions,
    full_positions,
    next_position,
    taken_positions,
)
from divprune.huggingface.model_inputs import Kind
from divprune.huggingface.report import ItemReport, PruningReport
from divprune.huggingface.selecting import Picks, Scope, choose
from divprune.methods.base import Method

Order = Literal["sorted", "selection"]

PADDING_VALUES = {
    "attention_mask": 0,
    "token_type_ids": 0,
    "mm_token_type_ids": 0,
    "moe_mm_token_type_ids": 0,
    "labels": -100,
}
"""Per-token inputs besides the ids and positions, and what stands at padding."""


@dataclass(frozen=True)
class Settings:
    """How a model is pruned; the arguments of `prune` and `attach`.

    Attributes:
        method: which tokens.
        budget: how many; None if the method says so itself.
        scope: which tokens share one budget.
        order: in which order the kept tokens are read.
        positions: which position ids they get; None for the family's default.
    """

    method: Method
    budget: Budget | None
    scope: Scope
    order: Order
    positions: Positions | None


@dataclass(frozen=True)
class ShortCall:
    """A call on the shortened prompt.

    Attributes:
        inputs: its arguments, `mm_encoder_outputs` among them.
        source: (B, L') original column of each column, see `prompt.source_columns`.
        report: what was kept.
        row_sizes: per kind, the kept tokens of each row that has any.
        prompt: what a cache will hold of it.
    """

    inputs: dict[str, Any]
    source: Tensor
    report: PruningReport
    row_sizes: dict[str, list[int]]
    prompt: CachedPrompt


def shorten_call(
    model: PreTrainedModel,
    family: Family,
    settings: Settings,
    inputs: dict[str, Any],
    attention_mask: Tensor,
    past: Past | None = None,
) -> ShortCall:
    """Shortens a call with pictures or videos, or one that continues from a shortened prompt.

    Args:
        model: the model.
        family: its family.
        settings: how to prune.
        inputs: the call's arguments, `input_ids` (B, L) among them; they cover the whole conversation.
        attention_mask: (B, L).
        past: what is cached of the conversation; only pictures that are not are pruned, and passed on.

    Returns:
        The call to make instead. `position_ids` are left out where the model derives the right ones by itself.
    """
    ids: Tensor = inputs["input_ids"]
    start = 0 if past is None else past.length
    if past is not None:
        # The first new token was generated, and may be anything.
        require_placeable_pictures(model, family, ids[:, start + 1 :])
    encoding = encode_for(settings.method, model, family, inputs, settings.budget, start)
    picks = choose(encoding.items, settings.method, settings.budget, settings.scope)
    encoding = with_merged_tokens(encoding, picks)
    keep, source = _source(ids, attention_mask, encoding.items, picks, settings.order, past)
    if past is not None and not encoding.outputs:
        require_no_placeholders(model, family, ids[:, past.length + 1 :])
    short_mask = take_columns(attention_mask, source, 0)
    if past is not None:
        require_placeable_padding(model, family, short_mask[:, past.short_length :])
    short = {name: value for name, value in inputs.items() if name not in encoding.consumed}
    for name, fill in {"input_ids": _padding_id(model), **PADDING_VALUES}.items():
        if isinstance(short.get(name), Tensor):
            short[name] = take_columns(short[name], source, fill)
    short["attention_mask"] = short_mask
    mode = settings.positions or family.positions
    if past is None:
        positions = full_positions(model, mode, inputs, attention_mask)
        short["position_ids"] = taken_positions(model, positions, attention_mask, source)
    else:
        positions, short["position_ids"] = continued_positions(model, inputs, attention_mask, source, past, encoding)
    kept_tokens = _kept_tokens(encoding.items, picks, settings.order)
    short["mm_encoder_outputs"], row_sizes = row_outputs(encoding, picks, settings.order)
    prompt = CachedPrompt(
        ids=ids,
        attention_mask=attention_mask,
        source=source,
        types={name: inputs[name] for name in TYPE_INPUTS if isinstance(inputs.get(name), Tensor)},
        positions=mode if past is None else past.prompt.positions,
        positions_given=inputs.get("position_ids") is not None,
        next_position=next_position(model, positions, attention_mask),
    )
    report = call_report(encoding, picks, kept_tokens, keep & attention_mask.bool())
    short = {name: value for name, value in short.items() if value is not None}
    return ShortCall(short, source, report, row_sizes, prompt)


def _source(
    input_ids: Tensor,
    attention_mask: Tensor,
    items: list[VisualItem],
    picks: list[Picks],
    order: Order,
    past: Past | None,
) -> tuple[Tensor, Tensor]:
    keep = torch.ones_like(input_ids, dtype=torch.bool)
    for item, pick in zip(items, picks, strict=True):
        keep[item.row, item.columns] = False
        keep[item.row, item.columns[pick.kept_indices]] = True
    if past is None:
        source = source_columns(keep, attention_mask)
    else:
        new = source_columns(keep[:, past.length :], attention_mask[:, past.length :])
        source = torch.cat([past.source, torch.where(new == PADDING, PADDING, new + past.length)], dim=-1)
        keep[:, : past.length] = present_columns(past.source, past.length)
    if order == "selection":
        for item, pick in zip(items, picks, strict=True):
            slots, columns = item.columns[pick.kept_indices], item.columns[pick.selection_order]
            source = reorder_columns(source, item.row, slots, columns)
    return keep, source


def _padding_id(model: PreTrainedModel) -> int:
    padding = getattr(model.config.get_text_config(), "pad_token_id", None)
    return 0 if padding is None or padding < 0 else int(padding)


def _kept_tokens(items: list[VisualItem], picks: list[Picks], order: Order) -> list[Tensor]:
    return [item.visual_tokens[_read(pick, order)] for item, pick in zip(items, picks, strict=True)]


def row_outputs(
    encoding: Encoding, picks: list[Picks], order: Order
) -> tuple[dict[str, ModelOutput], dict[str, list[int]]]:
    """The encoder's outputs with the kept tokens, one entry a row, and the number of tokens of each such row."""
    kinds = [kind for kind in encoding.outputs if any(item.kind == kind for item in encoding.items)]
    kept = {kind: _kept_of_rows(kind, encoding.items, picks, order) for kind in kinds}
    outputs: dict[str, ModelOutput] = {kind: take_tokens(encoding.outputs[kind], rows) for kind, rows in kept.items()}
    return outputs, {kind: [len(row) for row in rows] for kind, rows in kept.items()}


def _kept_of_rows(kind: Kind, items: list[VisualItem], picks: list[Picks], order: Order) -> list[Tensor]:
    """Indices of the kept tokens among all tokens of a kind, one tensor for each row that keeps any.

    Rows, not items: an item without tokens (scope "sample") has no row that beam search could repeat it with.
    """
    rows: dict[int, list[Tensor]] = {}
    for item, pick in zip(items, picks, strict=True):
        if item.kind == kind:
            rows.setdefault(item.row, []).append(_read(pick, order) + item.start)
    return [torch.cat(parts) for parts in rows.values()]


def _read(pick: Picks, order: Order) -> Tensor:
    return pick.kept_indices if order == "sorted" else pick.selection_order


def call_report(encoding: Encoding, picks: list[Picks], kept_tokens: list[Tensor], keep_mask: Tensor) -> PruningReport:
    """What a call kept; `keep_mask` is (B, L)."""
    total = sum(len(item.visual_tokens) for item in encoding.items)
    rows = [
        (item.row, int(item.columns[0]), _item_report(item, pick, kept, encoding.seconds / total))
        for item, pick, kept in zip(encoding.items, picks, kept_tokens, strict=True)
    ]
    rows.sort(key=lambda entry: entry[:2])
    selection_seconds = sum(pick.seconds for pick in picks)
    return PruningReport(tuple(row[2] for row in rows), keep_mask.cpu(), encoding.seconds, selection_seconds)


def _item_report(item: VisualItem, pick: Picks, kept_tokens: Tensor, seconds_per_token: float) -> ItemReport:
    count = len(item.visual_tokens)
    return ItemReport(
        kind=item.kind,
        row=item.row,
        num_visual_tokens=count,
        kept_indices=pick.kept_indices.cpu(),
        selection_order=pick.selection_order.cpu(),
        encoding_seconds=seconds_per_token * count,
        selection_seconds=pick.seconds,
        layout=item.layout,
        kept_tokens=kept_tokens.detach(),
    )


def require_ids(inputs: dict[str, Any]) -> None:
    """Refuses calls whose placeholders cannot be found.

    Raises:
        PruningError: the call brings embeddings instead of ids.
    """
    if inputs.get("inputs_embeds") is not None or inputs.get("input_ids") is None:
        raise PruningError("input_ids must be given while the model is pruned: inputs_embeds show no placeholders")


def require_one_prompt(inputs: dict[str, Any]) -> None:
    """Refuses calls whose visual tokens cannot be found or whose cache is of another length.

    Raises:
        PruningError: the call continues from a cache, or brings embeddings instead of ids.
    """
    require_ids(inputs)
    cache = cache_in(inputs)
    if cache is not None and cache.get_seq_length() > 0:
        raise PruningError(
            "the cache must be empty when pictures come in, or hold earlier turns of this pruned model: got a "
            f"cache of {cache.get_seq_length()} tokens; pass the whole conversation without the cache"
        )
