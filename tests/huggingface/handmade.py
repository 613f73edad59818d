"""The hand-made reference: kept rows fed as embeddings with the right positions, one row of the batch at a time.

Nothing of `divprune.huggingface` is used here; the kept set comes from `divprune.selection.reference`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.huggingface.tiny_models import IMAGE, VIDEO, features

KeepRule = Callable[[Tensor], Tensor]
"""(M, d) visual tokens of one item -> the kept indices in the order in which they are fed."""


@dataclass
class ShortRow:
    """One row's shortened prompt: (1, n', d) embeddings, (1, n') or (4, 1, n') positions, the kept columns."""

    embeddings: Tensor
    positions: Tensor
    columns: list[int]


def short_rows(model: PreTrainedModel, inputs: dict[str, Any], keep: KeepRule, compact: bool) -> list[ShortRow]:
    """Shortens each row by hand."""
    queues = {
        token: features(model, kind, inputs)
        for kind, token in (("image", IMAGE), ("video", VIDEO))
        if _has(inputs, kind)
    }
    grids = {token: _grids(inputs, kind) for kind, token in (("image", IMAGE), ("video", VIDEO))}
    rows = []
    for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
        start = int((mask == 0).sum())
        rows.append(_short_row(model, ids[start:], start, queues, grids, keep, compact))
    return rows


def _has(inputs: dict[str, Any], kind: str) -> bool:
    return ("pixel_values" if kind == "image" else "pixel_values_videos") in inputs


def _grids(inputs: dict[str, Any], kind: str) -> list[tuple[int, int, int, float]]:
    grids = inputs.get(f"{kind}_grid_thw")
    if grids is None:
        return []
    seconds = inputs.get("second_per_grid_ts", torch.ones(len(grids))) if kind == "video" else torch.ones(len(grids))
    return [(int(t), int(h) // 2, int(w) // 2, float(s)) for (t, h, w), s in zip(grids, seconds, strict=True)]


def _short_row(
    model: PreTrainedModel,
    ids: Tensor,
    start: int,
    queues: dict[int, list[Tensor]],
    grids: dict[int, list[tuple[int, int, int, float]]],
    keep: KeepRule,
    compact: bool,
) -> ShortRow:
    rope_3d = model.config.model_type == "qwen2_5_vl"
    embed = model.get_input_embeddings()
    vectors, places, columns = [], [], []
    column, next_place = 0, 0
    while column < len(ids):
        token = int(ids[column])
        if token not in queues:
            vectors.append(embed(ids[column]))
            places.append((next_place,) * 3)
            columns.append(start + column)
            column, next_place = column + 1, next_place + 1
            continue
        visual_tokens = queues[token].pop(0)
        count = len(visual_tokens)
        if rope_3d:
            t, h, w, seconds = grids[token].pop(0)
            step = int(2 * seconds) if token == VIDEO else 1
            cells = [(i * step, j, k) for i in range(t) for j in range(h) for k in range(w)]
            coordinates = [tuple(next_place + axis for axis in cell) for cell in cells]
            next_place += max(h, w)
        else:
            coordinates = [(next_place + i,) * 3 for i in range(count)]
            next_place += count
        for index in keep(visual_tokens).tolist():
            vectors.append(visual_tokens[index])
            places.append(coordinates[index])
            columns.append(start + column + index)
        column += count
    number = torch.arange(len(vectors))
    coordinates_3d = torch.tensor(places).T
    positions = torch.stack([number, *coordinates_3d])[:, None] if rope_3d else coordinates_3d[:1]
    return ShortRow(torch.stack(vectors)[None], number[None] if compact else positions, columns)


@torch.no_grad()
def greedy_logits(model: PreTrainedModel, row: ShortRow, tokens: Tensor) -> Tensor:
    """Logits before each of `tokens`: prefill on the short row, then one step a token; (len(tokens), vocabulary)."""
    positions, cache, logits = row.positions, None, []
    embeddings = row.embeddings
    for token in tokens:
        output = model.model.language_model(
            inputs_embeds=embeddings, position_ids=positions, past_key_values=cache, use_cache=True
        )
        cache = output.past_key_values
        logits.append(model.lm_head(output.last_hidden_state[0, -1]))
        embeddings = model.get_input_embeddings()(token)[None, None]
        positions = positions[..., -1:] + 1
    return torch.stack(logits)
