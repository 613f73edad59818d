"""The hand-made reference for layer K > 0: layers run one by one, tokens left out between them, no cache, no padding.

Nothing of `divprune.huggingface` is used here. One pass over a whole conversation gives the logits of all steps, since
attention is causal and each choice is made from what stands before it.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.huggingface.handmade import ShortRow, short_rows
from tests.huggingface.handmade_logits import head, language_model, per_layer_inputs, written_masks
from tests.huggingface.tiny_base import IMAGE, VIDEO
from tests.huggingface.tiny_models import CASES, Case, features

Rule = Callable[["Entering"], Tensor]
"""What is known at the entrance of layer K -> the kept ones of the tokens that an item has left, ascending."""


@dataclass
class Entering:
    """An item's tokens before layer K.

    `hidden` (n, d), `attention` (heads, n) of their turn's last token to them, `total` tokens before any was dropped;
    `text_attention` (heads, t, n) of the text behind their turn's pictures, of all if none follows; `visual_attention`
    (heads, v, n) of the visual tokens that the turn has left.
    """

    hidden: Tensor
    attention: Tensor
    total: int
    text_attention: Tensor
    visual_attention: Tensor


@dataclass
class FullRow:
    """One row of a batch without its padding, all visual tokens in place.

    `items`: for each image or video the places of its tokens; `ends`: for each the place behind its turn.
    """

    case: Case
    row: ShortRow
    items: list[Tensor]
    ends: list[int]
    padding: int

    @property
    def embeddings(self) -> Tensor:
        """(1, n, d)."""
        return self.row.embeddings

    @property
    def positions(self) -> Tensor:
        """(1, n) or (4, 1, n)."""
        return self.row.positions


def full_rows(model: PreTrainedModel, inputs: dict[str, Any], case: Case | None = None) -> list[FullRow]:
    """The rows of a batch, each alone; `case` only where several have the model's type."""
    case = case or CASES[model.config.model_type]
    everything = short_rows(case, model, inputs, lambda tokens: torch.arange(len(tokens)), compact=False)
    counts = {
        kind: [len(tokens) for tokens in features(case, model, kind, inputs)]
        for kind, names in (("image", ("pixel_values", "pixel_values_images")), ("video", ("pixel_values_videos",)))
        if any(name in inputs for name in names)
    }
    rows = []
    for row, mask in zip(everything, inputs["attention_mask"], strict=True):
        items = _items(row.ids[0], counts)
        rows.append(FullRow(case, row, items, [row.ids.shape[1]] * len(items), int((mask == 0).sum())))
    return rows


def _items(ids: Tensor, counts: dict[str, list[int]]) -> list[Tensor]:
    """Places of each item's tokens, in the order in which the items begin; takes their sizes from `counts`."""
    items = []
    for kind, sizes in counts.items():
        # GLM-4V writes both kinds with one token, and takes one kind a call.
        places = (ids == (VIDEO if kind == "video" and "image" in counts else IMAGE)).nonzero().squeeze(-1)
        if kind == "video" and not len(places):
            places = (ids == VIDEO).nonzero().squeeze(-1)
        while len(places):
            count = sizes.pop(0)
            items.append(places[:count])
            places = places[count:]
    return sorted(items, key=lambda item: int(item[0]))


def joined(model: PreTrainedModel, first: FullRow, said: Tensor, second: FullRow) -> FullRow:
    """A conversation: a row, the (t,) ids that were generated after it, and the row of the next turn."""
    one, two = first.row, second.row
    shift = one.embeddings.shape[1] + len(said)
    steps = one.positions[..., -1:] + torch.arange(1, len(said) + 1)
    positions = torch.cat([one.positions, steps], dim=-1)
    layers = max(len(one.deepstack), len(two.deepstack))
    words = model.get_input_embeddings()(said)
    row = ShortRow(
        embeddings=torch.cat([one.embeddings, words[None], two.embeddings], dim=1),
        positions=torch.cat([positions, two.positions + positions[..., -1:] + 1], dim=-1),
        columns=list(range(shift + two.embeddings.shape[1])),
        ids=torch.cat([one.ids, said[None], two.ids], dim=1),
        types={name: torch.cat([types, 0 * said[None], two.types[name]], dim=1) for name, types in one.types.items()},
        turns=(torch.arange(shift + two.embeddings.shape[1]) >= shift).long(),
        deepstack=[
            torch.cat([_deepstack(one, layer), torch.zeros_like(words), _deepstack(two, layer)])
            for layer in range(layers)
        ],
    )  # fmt: skip
    items = [*first.items, *(item + shift for item in second.items)]
    return replace(first, row=row, items=items, ends=[*first.ends, *(end + shift for end in second.ends)])


def _deepstack(row: ShortRow, layer: int) -> Tensor:
    return row.deepstack[layer] if row.deepstack else torch.zeros_like(row.embeddings[0])


@dataclass
class Reference:
    """Logits (1 + later tokens, vocabulary) from the prompt's last token on, and which tokens each item kept."""

    logits: Tensor
    kept: list[Tensor]


@torch.no_grad()
def run(model: PreTrainedModel, row: FullRow, later: Tensor, rules: dict[int, Rule]) -> Reference:
    """Runs a row and the (n,) ids after it, dropping visual tokens where each layer of `rules` begins."""
    text = language_model(model)
    hidden = torch.cat([row.embeddings, model.get_input_embeddings()(later)[None]], dim=1)
    given = _inputs_of_layers(model, row, hidden, later)
    places, weights = torch.arange(hidden.shape[1]), torch.empty(0)
    with eager_attention(text):
        for index, layer in enumerate(text.layers):
            if index in rules:
                stays = _staying(row, places, hidden, weights, rules[index])
                hidden, places = hidden[:, stays], places[stays]
            hidden, weights = _layer(layer, hidden, given(index, places))
            if index < len(row.row.deepstack):
                added = torch.zeros(len(row.row.columns) + len(later), hidden.shape[-1])
                added[: len(row.row.columns)] = row.row.deepstack[index]
                hidden = hidden + added[places]
    kept = [torch.isin(item, places).nonzero().squeeze(-1) for item in row.items]
    norm = text.norm if hasattr(text, "norm") else text.embedding_norm
    return Reference(head(model, norm(hidden))[0, -len(later) - 1 :], kept)


def _staying(row: FullRow, places: Tensor, hidden: Tensor, weights: Tensor, rule: Rule) -> Tensor:
    """(n,) bool; `weights` (heads, n, n) of the layer before, or empty."""
    stays = torch.ones(len(places), dtype=torch.bool)
    for item, end in zip(row.items, row.ends, strict=True):
        at = torch.isin(places, item).nonzero().squeeze(-1)
        asking = int((places < end).sum()) - 1
        attention = weights[:, asking, at] if len(weights) else weights
        text, visual = _of_turn(row, places, end)
        parts = [weights[:, queries][:, :, at] if len(weights) else weights for queries in (text, visual)]
        stays[at] = False
        stays[at[rule(Entering(hidden[0, at], attention, len(item), *parts))]] = True
    return stays


def _of_turn(row: FullRow, places: Tensor, end: int) -> tuple[Tensor, Tensor]:
    """Where the text and the visual tokens of the turn that ends before place `end` stand among `places`."""
    begin = max((other for other in row.ends if other < end), default=0)
    items = torch.cat([item for item, own in zip(row.items, row.ends, strict=True) if own == end])
    text = torch.tensor([place for place in range(begin, end) if place not in items.tolist()])
    after = text[text > items.max()]
    chosen = after if len(after) else text
    return torch.isin(places, chosen).nonzero().squeeze(1), torch.isin(places, items).nonzero().squeeze(1)


def _inputs_of_layers(
    model: PreTrainedModel, row: FullRow, hidden: Tensor, later: Tensor
) -> Callable[[int, Tensor], dict[str, Any]]:
    """What the layers get besides hidden states, by layer and by the places that are left."""
    text, length = language_model(model), hidden.shape[1]
    kinds = getattr(text.config, "layer_types", None) or ["full_attention"] * len(text.layers)
    positions = torch.cat([row.positions, row.positions[..., -1:] + torch.arange(1, len(later) + 1)], dim=-1)
    coordinates = positions[1:] if positions.ndim == 3 and row.case.text_row else positions
    masks = written_masks(row.case, model, row.row, length)
    ids = torch.cat([row.row.ids, later[None]], dim=1)
    own = [text.project_per_layer_inputs(hidden, value) for value in per_layer_inputs(model, ids).values()]

    def given(index: int, places: Tensor) -> dict[str, Any]:
        kind = kinds[index]
        rotary = _rotary(text, index, kind, hidden, coordinates)
        written = masks.get(kind)
        mask = (masks["full_attention"] if written is None else written)[:, :, places][..., places]
        extra: dict[str, Any] = {"per_layer_input": own[0][:, places, index]} if own else {}
        if "shared_kv_states" in inspect.signature(text.layers[index].forward).parameters:
            extra["shared_kv_states"] = {}
        return {
            "attention_mask": mask if kind.endswith("attention") and kind != "linear_attention" else None,
            "position_embeddings": None if rotary is None else tuple(part[..., places, :] for part in rotary),
            "position_ids": None,
            **extra,
        }

    return given


def _rotary(text: Any, index: int, kind: str, hidden: Tensor, coordinates: Tensor) -> tuple[Tensor, ...] | None:
    """Rotary embeddings of layer `index`; None where it has none."""
    by_kind = "layer_type" in inspect.signature(text.rotary_emb.forward).parameters
    if by_kind:
        return None if text.config.rope_parameters.get(kind) is None else text.rotary_emb(hidden, coordinates, kind)
    bases = getattr(text.config, "layer_rope_theta", None)
    return text.rotary_emb(hidden, coordinates) if bases is None or bases[index] else None


def _layer(layer: Any, hidden: Tensor, given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Hidden states behind a layer, and its attention weights (heads, n, n); none if it has another kind of mixing."""
    weights = []
    if hasattr(layer, "self_attn"):
        handle = layer.self_attn.register_forward_hook(lambda _, __, output: weights.append(output[1][0]))
    output = layer(hidden, **given)
    if hasattr(layer, "self_attn"):
        handle.remove()
    return output[0] if isinstance(output, tuple) else output, weights[0] if weights else torch.empty(0)


@contextmanager
def eager_attention(text: Any) -> Iterator[None]:
    """Attention that returns its weights."""
    before = text.config._attn_implementation
    text.config._attn_implementation = "eager"
    try:
        yield
    finally:
        text.config._attn_implementation = before
