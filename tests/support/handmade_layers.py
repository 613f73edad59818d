"""The hand-made reference for layer K > 0: layers run one by one, tokens left out between them, no cache, no padding.

Nothing of `divprune.huggingface` is used here. One pass over a whole conversation gives the logits of all steps, since
attention is causal and each choice is made from what stands before it.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from divprune.huggingface.model_inputs import CACHE
from tests.support.handmade import ShortRow, short_rows
from tests.support.handmade_entering import Before, FullRow, Own, Rule, entering_of
from tests.support.handmade_logits import head, language_model, per_layer_inputs, written_masks
from tests.support.models.base import IMAGE, VIDEO
from tests.support.models.every_family import CASES, Case, features


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
def run(
    model: PreTrainedModel, row: FullRow, later: Tensor, rules: dict[int, Rule], *, with_keys: bool = False
) -> Reference:
    """Runs a row and the (n,) ids after it, dropping visual tokens where each layer of `rules` begins.

    Rules are told keys only if `with_keys`, since not every layer can write them to a plain cache.
    """
    text = language_model(model)
    hidden = torch.cat([row.embeddings, model.get_input_embeddings()(later)[None]], dim=1)
    given = _inputs_of_layers(model, row, hidden, later)
    places, before, embedded = torch.arange(hidden.shape[1]), Before(), hidden[0]
    with eager_attention(text):
        for index, layer in enumerate(text.layers):
            if index in rules:

                def weights(hidden: Tensor, places: Tensor, layer: Any = layer, index: int = index) -> Tensor:
                    return _layer(layer, hidden, given(index, places), False)[1].weights

                hidden, places = _left(row, places, hidden, before, embedded, rules[index], weights)
            hidden, before = _layer(layer, hidden, given(index, places), with_keys)
            if index < len(row.row.deepstack):
                added = torch.zeros(len(row.row.columns) + len(later), hidden.shape[-1])
                added[: len(row.row.columns)] = row.row.deepstack[index]
                hidden = hidden + added[places]
    kept = [torch.isin(item, places).nonzero().squeeze(-1) for item in row.items]
    norm = text.norm if hasattr(text, "norm") else text.embedding_norm
    return Reference(head(model, norm(hidden))[0, -len(later) - 1 :], kept)


def _left(
    row: FullRow,
    places: Tensor,
    hidden: Tensor,
    before: Before,
    embedded: Tensor,
    rule: Rule,
    attended: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Hidden states and places (n,) of what stays, some of it merged; `attended` are the layer's own weights."""
    stays = torch.ones(len(places), dtype=torch.bool)
    became = hidden.clone()
    for number, item in enumerate(row.items):
        if number == 0 or row.ends[number] != row.ends[number - 1]:
            # Of earlier turns only what they left; of this one everything.
            seen, states = places[stays], became[:, stays]
            own = Own(seen, partial(attended, states, seen))
        at = torch.isin(places, item).nonzero().squeeze(-1)
        kept = rule(entering_of(row, number, places, hidden[0], before, embedded, own))
        if isinstance(kept, tuple):
            kept, weights = kept
            became[0, at[kept]] = weights @ hidden[0, at]
        stays[at] = False
        stays[at[kept]] = True
    return became[:, stays], places[stays]


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


def _layer(layer: Any, hidden: Tensor, given: dict[str, Any], with_keys: bool) -> tuple[Tensor, Before]:
    """Hidden states behind a layer, and what its attention was; nothing if it has another kind of mixing."""
    before = Before()
    cache = DynamicCache() if with_keys else None
    if hasattr(layer, "self_attn"):
        handle = layer.self_attn.register_forward_hook(lambda _, __, output: setattr(before, "weights", output[1][0]))
    output = layer(hidden, **given, **({} if cache is None else {CACHE: cache}))
    if hasattr(layer, "self_attn"):
        handle.remove()
    if cache is not None:
        before.keys = cache.layers[-1].keys[0]
    return output[0] if isinstance(output, tuple) else output, before


@contextmanager
def eager_attention(text: Any) -> Iterator[None]:
    """Attention that returns its weights."""
    before = text.config._attn_implementation
    text.config._attn_implementation = "eager"
    try:
        yield
    finally:
        text.config._attn_implementation = before
