"""Tiny models of each family, built from their configs with weights that react, and batches to call them with."""

import inspect
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.support.models.base import IMAGE, SOUND, VIDEO, Case, reactive
from tests.support.models.bidirectional import BIDIRECTIONAL_CASES
from tests.support.models.crops import CROP_CASES
from tests.support.models.gemma import GEMMA_CASES
from tests.support.models.inkling import INKLING_CASES
from tests.support.models.llava import LLAVA_CASES
from tests.support.models.mrope_variants import MROPE_CASES
from tests.support.models.newline_rows import ROW_CASES
from tests.support.models.patch_grids import PATCH_GRID_CASES
from tests.support.models.qwen import QWEN_CASES
from tests.support.models.relatives import RELATIVE_CASES
from tests.support.models.single_grid import SINGLE_GRID_CASES
from tests.support.models.sparse_attention import SPARSE_CASES
from tests.support.models.tiles import TILED_CASES

__all__ = [
    "CASES",
    "IMAGE",
    "NO_PLACEHOLDERS",
    "SOUND",
    "VIDEO",
    "Case",
    "Row",
    "built",
    "encoded",
    "features",
    "make_inputs",
    "reactive",
]


GROUPS = (
    LLAVA_CASES, TILED_CASES, GEMMA_CASES, QWEN_CASES, RELATIVE_CASES, SINGLE_GRID_CASES, PATCH_GRID_CASES, MROPE_CASES,
    CROP_CASES, BIDIRECTIONAL_CASES, SPARSE_CASES, INKLING_CASES, ROW_CASES,
)  # fmt: skip
CASES: dict[str, Case] = {case.name: case for group in GROUPS for case in group}


@cache
def built(name: str) -> PreTrainedModel:
    """A family's model, built once: for tests that leave it as they find it."""
    return CASES[name].build()


NO_PLACEHOLDERS = {"suppress_tokens": [90, 91, 92, SOUND, IMAGE, VIDEO]}
"""A generated placeholder means nothing, nor does what stands around a picture, which Ovis 2 embeds in another way."""

Row = list[int | str]
"""Text ids, with "image" and "video" where an item stands."""


def make_inputs(case: Case, model: PreTrainedModel, rows: list[Row]) -> dict[str, Any]:
    """A left-padded batch; each "image" or "video" in a row becomes as many placeholders as it has tokens."""
    inputs: dict[str, Any] = {}
    spellings: dict[str, list[list[int]]] = {}
    for kind in case.kinds:
        counts = [row.count(kind) for row in rows]
        if any(counts):
            media = case.media(model, kind, counts)
            inputs |= media
            sizes = [len(tokens) for tokens in features(case, model, kind, media)]
            spellings[kind] = [case.spell(kind, media, index, size) for index, size in enumerate(sizes)]
    expanded = [_expand(row, spellings) for row in rows]
    length = max(map(len, expanded))
    ids = torch.tensor([[0] * (length - len(row)) + row for row in expanded])
    inputs |= {"input_ids": ids, "attention_mask": (ids != 0).long()}
    return inputs | case.types(ids, tuple(spellings))


def features(case: Case, model: PreTrainedModel, kind: str, inputs: dict[str, Any]) -> list[Tensor]:
    """The visual tokens of each item, [(M, d), ...]."""
    items = case.items(model, kind, inputs, encoded(model, kind, inputs)["pooler_output"])
    return [item.reshape(-1, item.shape[-1]) for item in items]


@torch.no_grad()
def encoded(model: PreTrainedModel, kind: str, inputs: dict[str, Any]) -> Any:
    encoder = getattr(model.base_model, f"get_{kind}_features", None)
    if encoder is None:  # Perception LM has one encoder for both
        return model.base_model.get_image_features(inputs["pixel_values_videos"], return_dict=True)
    arguments = {name: inputs[name] for name in inspect.signature(encoder).parameters if name in inputs}
    return encoder(**arguments, return_dict=True)


def _expand(row: Row, spellings: dict[str, list[list[int]]]) -> list[int]:
    ids: list[int] = []
    for part in row:
        ids += [part] if isinstance(part, int) else spellings[part].pop(0)
    return ids
