"""Logits and sequences of a hand-made short row: the model's language model, with every mask written out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from divprune.huggingface.model_inputs import CACHE, cache_in
from tests.support.handmade import ShortRow
from tests.support.models.every_family import IMAGE, VIDEO, Case

LANGUAGE_MODELS = ("language_model", "text_model")


def language_model(model: PreTrainedModel) -> PreTrainedModel:
    return next((part for name, part in model.model.named_children() if name in LANGUAGE_MODELS), model.model)


def head(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Hidden states (..., d) -> logits (..., vocabulary)."""
    config = model.config.get_text_config()
    logits = model.lm_head(hidden) * getattr(config, "output_multiplier", 1)
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


@torch.no_grad()
def all_logits(case: Case, model: PreTrainedModel, row: ShortRow, tokens: Tensor) -> Tensor:
    """Logits after each column of the short row with `tokens` behind it: one pass, no cache; (n' + t, vocabulary)."""
    embeddings = torch.cat([row.embeddings, model.get_input_embeddings()(tokens)[None]], dim=1)
    steps = torch.arange(1, len(tokens) + 1)
    positions = torch.cat([row.positions, row.positions[..., -1:] + steps], dim=-1)
    ids = torch.cat([row.ids, tokens[None]], dim=1)
    with deepstack_added(model, row):
        output = language_model(model)(
            inputs_embeds=embeddings,
            position_ids=positions,
            attention_mask=_mask(case, model, row, embeddings.shape[1]),
            use_cache=False,
            **per_layer_inputs(model, ids),
            **expert_types(row, len(tokens)),
        )
    return head(model, output.last_hidden_state[0])


@torch.no_grad()
def greedy_logits(case: Case, model: PreTrainedModel, row: ShortRow, tokens: Tensor) -> Tensor:
    """Logits before each of `tokens`; (len(tokens), vocabulary)."""
    if not case.cells:
        return all_logits(case, model, row, tokens[:-1])[-len(tokens) :]
    # Linear attention (Qwen3.5) rounds differently in one pass than token by token, so these models go step by step.
    embeddings, positions, cache, logits = row.embeddings, row.positions, None, []
    ids, length = row.ids, 0
    with deepstack_added(model, row):
        for token in tokens:
            length += embeddings.shape[1]
            output = language_model(model)(
                inputs_embeds=embeddings,
                position_ids=positions,
                attention_mask=torch.ones(1, length, dtype=torch.int64),
                **{CACHE: cache},
                use_cache=True,
                **per_layer_inputs(model, ids),
                **(expert_types(row, 0) if cache is None else {}),
            )
            cache = cache_in(output)
            logits.append(head(model, output.last_hidden_state[0, -1]))
            embeddings, ids = model.get_input_embeddings()(token)[None, None], token[None, None]
            positions = positions[..., -1:] + 1
    return torch.stack(logits)


def _mask(case: Case, model: PreTrainedModel, row: ShortRow, length: int) -> Any:
    """The additive mask, or one a kind of layer; models with M-RoPE build the plain causal one themselves."""
    if case.cells:
        return None
    masks = written_masks(case, model, row, length)
    return masks if "sliding_attention" in masks else masks["full_attention"]


def written_masks(case: Case, model: PreTrainedModel, row: ShortRow, length: int) -> dict[str, Tensor | None]:
    """The additive mask (1, 1, n, n) of each kind of attention, written out."""
    query, key = torch.arange(length)[:, None], torch.arange(length)[None]
    block = torch.full((length,), -1)
    block[: len(row.columns)] = _blocks(case, row)
    causal = key <= query
    same_block = (block[:, None] == block[None]) & (block[None] >= 0)
    if row.turns is not None:  # what an earlier turn cached has not seen a later one
        turns = torch.cat([row.turns, torch.ones(length - len(row.turns), dtype=torch.int64)])
        same_block &= turns[None] <= turns[:, None]
    sees = causal | same_block
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    dtype = torch.promote_types(torch.float32, model.dtype)
    full = _additive(causal if case.block == "sliding runs" else sees, dtype)
    kinds = set(getattr(config, "layer_types", None) or [])
    if window is None or not {"sliding_attention", "hybrid_sliding"} & kinds:
        return {"full_attention": full}
    near = sees & (key > query - window)
    if case.block != "sliding runs":  # Gemma 4 alone cuts its blocks at the window
        near = near | same_block
    # Layers that mix neighbours instead of attending need a mask for padding only.
    return {
        "full_attention": full, "indexed_attention": full, "sliding_attention": _additive(near, dtype), "conv": None,
        "linear_attention": None,
    }  # fmt: skip


def _additive(sees: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(sees.shape, dtype=dtype).masked_fill(~sees, torch.finfo(torch.float32).min)[None, None]


def _blocks(case: Case, row: ShortRow) -> Tensor:
    """For each column the number of the block that it shares with others; -1 for none."""
    if case.block == "prefix":
        # The model takes only what comes with an empty cache for the prefix.
        is_prefix = (row.types["token_type_ids"][0] == 0) & (True if row.turns is None else row.turns == 0)
        return torch.where(is_prefix, 0, -1)
    if case.block.endswith("runs"):
        visual = row.is_visual[0]
        starts = visual & ~torch.cat([torch.zeros(1, dtype=torch.bool), visual[:-1]])
        return torch.where(visual, starts.cumsum(0) - 1, -1)
    if case.block == "mm_token_type_ids":
        return torch.where(row.types[case.block][0] == 1, 0, -1)
    return torch.full((len(row.columns),), -1)


def per_layer_inputs(model: PreTrainedModel, ids: Tensor) -> dict[str, Tensor]:
    """Gemma 4 looks up a second embedding a layer: that of the padding token where a visual token stands."""
    config = model.config.get_text_config()
    if getattr(config, "ple_layer_ids", None):  # Qwen4 looks up runs of ids
        return {"ple_input_ids": ids}
    if not getattr(config, "hidden_size_per_layer_input", None):
        return {}
    visual = (ids == IMAGE) | (ids == VIDEO)
    vectors = language_model(model).embed_tokens_per_layer(ids.masked_fill(visual, config.pad_token_id))
    shape = (config.num_hidden_layers, config.hidden_size_per_layer_input)
    return {"per_layer_inputs": vectors.unflatten(-1, shape).detach()}


def expert_types(row: ShortRow, num_later: int) -> dict[str, Tensor]:
    """ERNIE chooses among other experts where this type is 1."""
    name = "moe_mm_token_type_ids"
    later = torch.zeros(1, num_later, dtype=torch.int32)
    return {name: torch.cat([row.types[name], later], dim=-1)} if name in row.types else {}


@contextmanager
def deepstack_added(model: PreTrainedModel, row: ShortRow) -> Iterator[None]:
    """Adds the deepstack features to the visual tokens behind the first layers, whenever the whole prompt comes in."""

    def add(layer: Tensor) -> Callable[..., Any]:
        def hook(_: Any, __: Any, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            if hidden.shape[1] < len(layer):
                return output
            hidden = hidden.clone()
            hidden[:, : len(layer)] += layer
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        return hook

    layers = language_model(model).layers
    handles = [layers[index].register_forward_hook(add(layer)) for index, layer in enumerate(row.deepstack)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def prompt_embedded(model: PreTrainedModel, row: ShortRow) -> Iterator[None]:
    """Hands the language model the row's embeddings, whenever the whole prompt comes in."""
    own = {"inputs_embeds": row.embeddings, **per_layer_inputs(model, row.ids)}

    def replace(_: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        batch_size, length = kwargs["inputs_embeds"].shape[:2]
        if length != row.embeddings.shape[1]:
            return None
        return args, kwargs | {name: value.expand(batch_size, *value.shape[1:]) for name, value in own.items()}

    handle = language_model(model).register_forward_pre_hook(replace, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def generate_by_hand(model: PreTrainedModel, row: ShortRow, **settings: Any) -> tuple[Tensor, Any]:
    """The model's own generate on the short row's embeddings: the new tokens, and all that it returns.

    It gets text ids of the right length: not every family's generate takes embeddings.
    """
    ids = row.ids.masked_fill(row.is_visual, 2)
    with deepstack_added(model, row), prompt_embedded(model, row):
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            position_ids=row.positions,
            **row.types,
            **settings,
        )
    return output.sequences[:, ids.shape[1] :], output
