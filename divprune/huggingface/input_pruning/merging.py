"""Merged tokens take the places of their anchors in the encoder's output; the rest goes on as with any selection."""

import copy
from dataclasses import replace

from torch import Tensor
from transformers.utils.generic import ModelOutput

from divprune.huggingface.encoding.encode import Encoding
from divprune.huggingface.encoding.encoder_output import flat_tokens
from divprune.huggingface.model_inputs import Kind
from divprune.huggingface.selecting import Picks


def with_merged_tokens(encoding: Encoding, picks: list[Picks]) -> Encoding:
    """The encoding with each anchor's token replaced by what was merged into it.

    Features for deeper layers ("deepstack") stay the anchor's own.
    """
    if all(pick.merged is None for pick in picks):
        return encoding
    outputs = {kind: _replaced(kind, output, encoding, picks) for kind, output in encoding.outputs.items()}
    items = []
    for item, pick in zip(encoding.items, picks, strict=True):
        if pick.merged is not None:
            item = replace(item, visual_tokens=_written(item.visual_tokens, pick.selection_order, pick.merged))
        items.append(item)
    return replace(encoding, outputs=outputs, items=items)


def _replaced(kind: Kind, output: ModelOutput, encoding: Encoding, picks: list[Picks]) -> ModelOutput:
    entries: list[Tensor] | tuple[Tensor, ...] | Tensor = output["pooler_output"]
    tokens = flat_tokens(entries)
    for item, pick in zip(encoding.items, picks, strict=True):
        if item.kind == kind and pick.merged is not None:
            tokens = _written(tokens, item.start + pick.selection_order, pick.merged)
    replaced = copy.copy(output)
    if isinstance(entries, Tensor):
        replaced["pooler_output"] = tokens.view(entries.shape)
    else:
        parts = tokens.split([entry.numel() // entry.shape[-1] for entry in entries])
        replaced["pooler_output"] = [part.view(entry.shape) for part, entry in zip(parts, entries, strict=True)]
    return replaced


def _written(tokens: Tensor, places: Tensor, values: Tensor) -> Tensor:
    return tokens.index_copy(0, places, values.to(tokens.dtype))
