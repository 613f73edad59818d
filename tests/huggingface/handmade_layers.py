"""The hand-made reference for layer K > 0: layers run one by one, tokens left out between them, no cache, no padding.

Nothing of `divprune.huggingface` is used here. One pass over prompt and later tokens gives the logits of all steps,
since attention is causal and the choice is made from the prompt alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.huggingface.handmade import short_rows
from tests.huggingface.tiny_base import IMAGE, VIDEO
from tests.huggingface.tiny_models import CASES, features

Rule = Callable[["Entering"], Tensor]
"""What is known at the entrance of layer K -> the kept ones of an item's M tokens, ascending."""


@dataclass
class Entering:
    """An item's tokens before layer K: hidden states (M, d), and (heads, M) what the prompt's last token attends."""

    hidden: Tensor
    attention: Tensor


@dataclass
class FullRow:
    """One row of a batch without its padding, all visual tokens in place.

    `embeddings` (1, n, d), `positions` (1, n) or (4, 1, n), `items`: for each image or video the places of its tokens.
    """

    embeddings: Tensor
    positions: Tensor
    items: list[Tensor]
    padding: int


def full_rows(model: PreTrainedModel, inputs: dict[str, Any]) -> list[FullRow]:
    """The rows of a batch, each alone."""
    case = CASES[model.config.model_type]
    everything = short_rows(case, model, inputs, lambda tokens: torch.arange(len(tokens)), compact=False)
    counts = {
        token: [len(tokens) for tokens in features(case, model, kind, inputs)]
        for kind, token, name in (("image", IMAGE, "pixel_values"), ("video", VIDEO, "pixel_values_videos"))
        if name in inputs
    }
    rows = []
    for row, ids, mask in zip(everything, inputs["input_ids"], inputs["attention_mask"], strict=True):
        padding = int((mask == 0).sum())
        rows.append(FullRow(row.embeddings, row.positions, _items(ids[padding:].tolist(), counts), padding))
    return rows


def _items(ids: list[int], counts: dict[int, list[int]]) -> list[Tensor]:
    items, place = [], 0
    while place < len(ids):
        count = counts[ids[place]].pop(0) if ids[place] in counts else 0
        if count:
            items.append(torch.arange(place, place + count))
        place += max(count, 1)
    return items


@dataclass
class Reference:
    """Logits (1 + later tokens, vocabulary) from the prompt's last token on, and which tokens each item kept."""

    logits: Tensor
    kept: list[Tensor]


@torch.no_grad()
def run(model: PreTrainedModel, row: FullRow, later: Tensor, rules: dict[int, Rule]) -> Reference:
    """Runs a row and the (n,) ids after it, dropping visual tokens where each layer of `rules` begins."""
    text = model.model.language_model
    num_prompt = row.embeddings.shape[1]
    hidden = torch.cat([row.embeddings, model.get_input_embeddings()(later)[None]], dim=1)
    positions = torch.cat([row.positions, row.positions[..., -1:] + torch.arange(1, len(later) + 1)], dim=-1)
    rotary = text.rotary_emb(hidden, positions[1:] if positions.ndim == 3 else positions)
    places, items, before = torch.arange(hidden.shape[1]), row.items, hidden
    for index, layer in enumerate(text.layers):
        if index in rules:
            attention = last_row(text.layers[index - 1], before, rotary, int((places < num_prompt).sum()))
            there = [torch.isin(places, item).nonzero().squeeze(-1) for item in items]
            kept = [rules[index](Entering(hidden[0, at], attention[:, at])) for at in there]
            gone = [places[at][~torch.isin(torch.arange(len(at)), some)] for at, some in zip(there, kept, strict=True)]
            stays = ~torch.isin(places, torch.cat([*gone, torch.tensor([], dtype=torch.int64)]))
            hidden, rotary, places = hidden[:, stays], tuple(part[..., stays, :] for part in rotary), places[stays]
        before, hidden = hidden, _layer(layer, hidden, rotary)
    kept = [torch.isin(item, places).nonzero().squeeze(-1) for item in items]
    return Reference(model.lm_head(text.norm(hidden))[0, -len(later) - 1 :], kept)


def _layer(layer: Any, hidden: Tensor, rotary: tuple[Tensor, ...]) -> Tensor:
    length = hidden.shape[1]
    mask = torch.full((length, length), torch.finfo(hidden.dtype).min).triu(1)[None, None]
    return layer(hidden, attention_mask=mask, position_embeddings=rotary, position_ids=None)


def last_row(layer: Any, hidden: Tensor, rotary: tuple[Tensor, ...], num_prompt: int) -> Tensor:
    """(heads, n) attention probabilities of the prompt's last token in a layer, from its weights."""
    attention, size = layer.self_attn, layer.self_attn.head_dim
    states = layer.input_layernorm(hidden)[0, :num_prompt]
    query, key = attention.q_proj(states).unflatten(-1, (-1, size)), attention.k_proj(states).unflatten(-1, (-1, size))
    cos, sin = (part[0, :num_prompt, None] for part in rotary)
    query, key = (x * cos + torch.cat([-x[..., size // 2 :], x[..., : size // 2]], dim=-1) * sin for x in (query, key))
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    return (torch.einsum("hd,nhd->hn", query[-1], key) / size**0.5).softmax(dim=-1)
