"""The encoder's output in, the same output with some of its tokens out.

Models take the tokens of all images as a list of (tokens, d) tensors or as one tensor, and some add features for
deeper layers ("deepstack"), token by token. All of it is gathered with the same indices. The pruned output holds one
entry a row of the batch: that is what beam search repeats.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from divprune.config import Order
from divprune.huggingface.encoding.items import Encoding, ItemSelection, VisualItem
from divprune.methods.item_context import Modality


def flat_tokens(entries: Sequence[Tensor] | Tensor) -> Tensor:
    """Entries of any shape (..., d) -> (total, d), without a copy where one image or one tensor holds all."""
    if isinstance(entries, Tensor):
        return entries.reshape(-1, entries.shape[-1])
    rows = [entry.reshape(-1, entry.shape[-1]) for entry in entries]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def entry_sizes(output: ModelOutput) -> list[int]:
    """Count the tokens of each entry of an encoder's output."""
    return [entry.numel() // entry.shape[-1] for entry in output["pooler_output"]]


def even_size(output: ModelOutput) -> int:
    """Count the visual tokens of each image or tile that went through the encoder; 0 if they cannot be equally many."""
    size, rest = divmod(sum(entry_sizes(output)), len(output["last_hidden_state"]))
    return 0 if rest else size


def take_tokens(output: ModelOutput, rows: list[Tensor]) -> ModelOutput:
    """Return a copy of an encoder's output that holds some of its tokens.

    Args:
        output: its `pooler_output` holds the visual tokens.
        rows: for each row of the batch that has any, the (k,) int64 indices of its tokens among all of the output.
    """
    taken = copy.copy(output)
    taken["pooler_output"] = _take(output["pooler_output"], rows)
    deepstack = output.get("deepstack_features")
    if deepstack is not None:
        taken["deepstack_features"] = [_take(layer, rows) for layer in deepstack]
    return taken


def _take(entries: Sequence[Tensor] | Tensor, rows: list[Tensor]) -> list[Tensor] | Tensor:
    tokens = flat_tokens(entries)
    taken = [tokens[indices] for indices in rows]
    # Where the model wants one tensor, rows of different lengths only fit as entries of a single token.
    return torch.cat(taken)[:, None] if isinstance(entries, Tensor) else taken


@contextmanager
def whole_rows_repeated(model: PreTrainedModel, row_sizes: Mapping[Modality, list[int]]) -> Iterator[None]:
    """Let beam search and several return sequences repeat each row's visual tokens as a whole.

    transformers looks for the borders of the rows by matching counts of placeholders and of entries, which needs one
    entry an image and finds none in a ragged tensor; 5.18 also interleaves several images of a row.

    Args:
        model: the model; it is as before on exit.
        row_sizes: per modality, how many tokens each row has that has any.
    """

    def expand(
        input_ids: Any, mm_encoder_output: dict[Modality, Any], expand_size: int = 1, **_: Any
    ) -> dict[str, Any]:
        return {
            modality: _repeat_rows(output, row_sizes[modality], expand_size) if modality in row_sizes else output
            for modality, output in mm_encoder_output.items()
        }

    name = "_expand_multimodal_outputs"
    before: dict[str, Callable[..., Any]] = {name: model.__dict__[name]} if name in model.__dict__ else {}
    model.__dict__[name] = expand
    try:
        yield
    finally:
        del model.__dict__[name]
        model.__dict__.update(before)


def _repeat_rows(output: ModelOutput, sizes: list[int], times: int) -> ModelOutput:
    device = output["pooler_output"][0].device
    rows = torch.arange(sum(sizes), device=device).split(sizes)
    return take_tokens(output, [row for row in rows for _ in range(times)])


def with_merged_tokens(encoding: Encoding, selections: list[ItemSelection]) -> Encoding:
    """Replace each anchor's token by what was merged into it.

    Features for deeper layers ("deepstack") stay the anchor's own.
    """
    outputs = {
        modality: _replaced(modality, output, encoding, selections) for modality, output in encoding.outputs.items()
    }
    items = []
    for item, selection in zip(encoding.items, selections, strict=True):
        if selection.merged is not None:
            tokens = _written(item.visual_tokens, selection.selection_order, selection.merged)
            item = replace(item, visual_tokens=tokens)
        items.append(item)
    return replace(encoding, outputs=outputs, items=items)


def _replaced(
    modality: Modality, output: ModelOutput, encoding: Encoding, selections: list[ItemSelection]
) -> ModelOutput:
    entries: list[Tensor] | tuple[Tensor, ...] | Tensor = output["pooler_output"]
    tokens = flat_tokens(entries)
    for item, selection in zip(encoding.items, selections, strict=True):
        if item.modality == modality and selection.merged is not None:
            tokens = _written(tokens, item.start + selection.selection_order, selection.merged)
    replaced = copy.copy(output)
    if isinstance(entries, Tensor):
        replaced["pooler_output"] = tokens.view(entries.shape)
    else:
        parts = tokens.split([entry.numel() // entry.shape[-1] for entry in entries])
        replaced["pooler_output"] = [part.view(entry.shape) for part, entry in zip(parts, entries, strict=True)]
    return replaced


def _written(tokens: Tensor, places: Tensor, values: Tensor) -> Tensor:
    return tokens.index_copy(0, places, values.to(tokens.dtype))


def kept_outputs(
    encoding: Encoding, selections: list[ItemSelection], order: Order
) -> tuple[dict[Modality, ModelOutput], dict[Modality, list[int]]]:
    """Take the kept tokens out of the encoder's outputs.

    Returns:
        The outputs, one entry for each row of the batch that keeps any, as `mm_encoder_outputs` takes them; and the
        number of tokens of each such row, for `whole_rows_repeated`.
    """
    modalities = [
        modality for modality in encoding.outputs if any(item.modality == modality for item in encoding.items)
    ]
    kept = {modality: _kept_of_rows(modality, encoding.items, selections, order) for modality in modalities}
    outputs = {modality: take_tokens(encoding.outputs[modality], rows) for modality, rows in kept.items()}
    return outputs, {modality: [len(row) for row in rows] for modality, rows in kept.items()}


def _kept_of_rows(
    modality: Modality, items: list[VisualItem], selections: list[ItemSelection], order: Order
) -> list[Tensor]:
    """Index the kept tokens among all tokens of a modality, one tensor for each row that keeps any.

    Rows, not items: an item without tokens (scope "sample") has no row that beam search could repeat it with.
    """
    rows: dict[int, list[Tensor]] = {}
    for item, selection in zip(items, selections, strict=True):
        if item.modality == modality:
            kept = selection.kept_indices if order == "sorted" else selection.selection_order
            rows.setdefault(item.row, []).append(kept + item.start)
    return [torch.cat(parts) for parts in rows.values()]
