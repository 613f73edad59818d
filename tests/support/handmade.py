"""The hand-made reference: kept rows fed as embeddings with the right positions, one row of the batch at a time.

Nothing of `divprune.huggingface` is used here; the kept set comes from `divprune.selection.reference`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.support.models.every_family import IMAGE, VIDEO, Case, encoded, features

KeepRule = Callable[[Tensor], Tensor]
"""(M, d) visual tokens of one item -> the kept indices in the order in which they are fed."""

PIXELS = {"image": ("pixel_values", "pixel_values_images"), "video": ("pixel_values_videos",)}


@dataclass
class Item:
    """One image or video: its tokens, its deepstack features, where it stands, its coordinates."""

    tokens: Tensor
    deepstack: list[Tensor]
    stretches: list[list[tuple[int, int, int]]] | None
    index: int
    columns: list[int] = field(default_factory=list)
    places: list[tuple[int, ...]] = field(default_factory=list)


@dataclass
class ShortRow:
    """One row's shortened prompt: (1, n', d) embeddings, (1, n') or (4, 1, n') positions, the kept columns.

    `turns` (n',) numbers the turn in which a column came; None if there is only one.
    """

    embeddings: Tensor
    positions: Tensor
    columns: list[int]
    ids: Tensor
    types: dict[str, Tensor]
    deepstack: list[Tensor]
    turns: Tensor | None = None

    @property
    def is_visual(self) -> Tensor:
        """(1, n') bool."""
        return (self.ids == IMAGE) | (self.ids == VIDEO)


def short_rows(
    case: Case, model: PreTrainedModel, inputs: dict[str, Any], keep: KeepRule, compact: bool | None = None
) -> list[ShortRow]:
    """Shortens each row by hand; numbered as by default, unless `compact` says whether anew."""
    queues = {kind: items_of(case, model, kind, inputs) for kind in case.kinds if _has(inputs, kind)}
    return [short_row(case, model, inputs, number, queues, keep, compact) for number in range(len(inputs["input_ids"]))]


def _has(inputs: dict[str, Any], kind: str) -> bool:
    return any(name in inputs for name in PIXELS[kind])


def items_of(case: Case, model: PreTrainedModel, kind: str, inputs: dict[str, Any]) -> list[Item]:
    """The images or the videos of a call."""
    if not _has(inputs, kind):
        return []
    tokens = features(case, model, kind, inputs)
    layers = encoded(model, kind, inputs).get("deepstack_features") or []
    sizes = [len(item) for item in tokens]
    cut = [torch.cat(list(layer)).split(sizes) for layer in layers]
    return [
        Item(item, [layer[index] for layer in cut], case.cells(kind, inputs, index) if case.cells else None, index)
        for index, item in enumerate(tokens)
    ]


def _walk(case: Case, ids: Tensor, queues: dict[str, list[Item]]) -> tuple[list[tuple[int, ...]], list[Item]]:
    """Places of every column of an unpadded row, and the items that stand in it, taken from the queues."""
    places: list[tuple[int, ...]] = []
    current: dict[str, Item] = {}
    items = []
    next_place = 0
    for column, token in enumerate(ids.tolist()):
        if token not in (IMAGE, VIDEO):
            places.append((next_place,) * 3)
            next_place += 1
            continue
        # GLM-4V writes both with one token, and takes one kind a call.
        kind = "image" if "image" in queues and token == IMAGE else "video"
        item = current.get(kind)
        if item is None or len(item.columns) == len(item.tokens):
            item = current[kind] = queues[kind].pop(0)
            items.append(item)
        places.append(_place(item, next_place))
        next_place = next_place + 1 if item.stretches is None else _after(case, item, next_place)
        item.columns.append(column)
        item.places.append(places[-1])
    if case.places:
        places = case.places(ids.tolist(), [(item.columns, item.stretches, item.index) for item in items])
        for item in items:
            item.places = [places[column] for column in item.columns]
    return places, items


def _stretch(item: Item) -> tuple[list[tuple[int, int, int]], int]:
    """The stretch of placeholders that the item's next one lies in, and its index there."""
    index = len(item.columns)
    for stretch in item.stretches or []:
        if index < len(stretch):
            return stretch, index
        index -= len(stretch)
    raise AssertionError("more placeholders than cells")


def _place(item: Item, base: int) -> tuple[int, ...]:
    if item.stretches is None:
        return (base,) * 3
    stretch, index = _stretch(item)
    return tuple(base + axis for axis in stretch[index])


def _after(case: Case, item: Item, base: int) -> int:
    stretch, index = _stretch(item)
    if index + 1 < len(stretch):
        return base
    return base + 1 + max(max(place if case.times else place[1:]) for place in stretch)


def short_row(
    case: Case,
    model: PreTrainedModel,
    inputs: dict[str, Any],
    number: int,
    queues: dict[str, list[Item]],
    keep: KeepRule,
    compact: bool | None,
) -> ShortRow:
    compact = case.positions[0] == "compact" if compact is None else compact
    start = int((inputs["attention_mask"][number] == 0).sum())
    ids = inputs["input_ids"][number, start:]
    places, items = _walk(case, ids, queues)
    stays = torch.ones(len(ids), dtype=torch.bool)
    vectors = case.embeds(model, ids)
    layers = [torch.zeros_like(vectors) for _ in range(max((len(item.deepstack) for item in items), default=0))]
    for item in items:
        stays[item.columns] = False
        picks = keep(item.tokens)
        for column, index in zip(sorted(item.columns[pick] for pick in picks.tolist()), picks.tolist(), strict=True):
            stays[column] = True
            vectors[column] = item.tokens[index] + (vectors[column] if case.adds else 0)
            places[column] = item.places[index]
            for layer, feature in zip(layers, item.deepstack, strict=True):
                layer[column] = feature[index]
    columns = stays.nonzero().squeeze(-1)
    count = torch.arange(len(columns))
    coordinates = torch.tensor(places).T[:, columns]
    rows = [count, *coordinates] if case.text_row else [*coordinates]
    positions = torch.stack(rows)[:, None] if case.cells else coordinates[:1]
    return ShortRow(
        embeddings=vectors[None, columns],
        positions=count[None] if compact else positions,
        columns=(columns + start).tolist(),
        ids=ids[None, columns],
        types={
            name: inputs[name][None, number, start:][:, columns] for name in case.types(inputs["input_ids"], case.kinds)
        },
        deepstack=[layer[columns] for layer in layers],
    )
