"""Model inputs -> visual tokens per image or video, and where their placeholders stand in the prompt."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from divprune.errors import PruningError
from divprune.huggingface.encoding.clues import Clues
from divprune.huggingface.encoding.encoder import run_encoder
from divprune.huggingface.encoding.encoder_output import flat_tokens
from divprune.huggingface.families.item_sizes import entry_sizes
from divprune.huggingface.families.pieces import pieces_of
from divprune.huggingface.families.registry import Family
from divprune.huggingface.families.token_layout import Layout
from divprune.huggingface.model_inputs import PIXEL_INPUTS, Kind, pixels_of
from divprune.methods.base import Piece


@dataclass(frozen=True)
class VisualItem:
    """One image or video: its visual tokens and the placeholders that they fill.

    Attributes:
        kind: "image" or "video".
        row: row of the batch.
        columns: (M,) int64 prompt columns of the placeholders, ascending.
        visual_tokens: (M, d) after the projector, in the language model's embedding space; inside the language model,
            the hidden states of the tokens that are still there.
        layout: where the tokens sit in the picture, None if unknown.
        start: index of the item's first token among all tokens of the encoder's output.
        left: (n,) int64 inside the language model, where some tokens are gone: indices of those that are still there.
            `visual_tokens` and `clues` are theirs, `columns` and `layout` those of all M.
        clues: what else the method asked for; None if nothing.
        pieces: the grids that the tokens form, None if unknown.
    """

    kind: Kind
    row: int
    columns: Tensor
    visual_tokens: Tensor
    layout: Layout | None
    start: int
    left: Tensor | None = None
    clues: Clues | None = None
    pieces: tuple[Piece, ...] | None = None


@dataclass(frozen=True)
class Encoding:
    """What the vision encoder made of a call.

    Attributes:
        outputs: the encoder's output per kind, as `mm_encoder_outputs` takes them.
        items: every image and video; those of one kind in the order in which their placeholders stand.
        consumed: names of the inputs that the encoder has used up.
        seconds: wall time of the encoder.
        first_column: column of the prompt from which on `items` are all that the encoder was given.
    """

    outputs: dict[Kind, ModelOutput]
    items: list[VisualItem]
    consumed: set[str]
    seconds: float
    first_column: int = 0


def has_visual_inputs(inputs: Mapping[str, Any]) -> bool:
    """Whether a call brings pictures or videos, raw or already encoded."""
    return bool(inputs.get("mm_encoder_outputs")) or any(pixels_of(inputs, kind) is not None for kind in PIXEL_INPUTS)


def require_no_placeholders(model: PreTrainedModel, family: Family, input_ids: Tensor) -> None:
    """Refuses ids (B, n) with placeholders in a call that brings no pictures.

    Raises:
        PruningError: there are placeholders.
    """
    for kind in family.kinds:
        token_id = getattr(model.config, family.placeholders[kind])
        count = int((input_ids == token_id).sum())
        if count:
            raise PruningError(
                f"pictures must come with their placeholders: input_ids hold {count} new {kind} placeholders (id "
                f"{token_id}), and the call brings no pixels; pass all that the model's processor returns"
            )


def encode(model: PreTrainedModel, family: Family, inputs: Mapping[str, Any], past_length: int = 0) -> Encoding:
    """Runs the model's own vision encoder and projector and finds each item's placeholders.

    Args:
        model: the model to prune.
        family: its family.
        inputs: what `generate` or `forward` was called with; `input_ids` (B, L) among it.
        past_length: how many columns are cached. The call may bring the pictures of the other columns alone, or those
            of the whole conversation; only the former become items.

    Raises:
        PruningError: placeholders and features do not match, an item's placeholders span two rows, the family is not
            pruned with videos, or it cannot tell the placeholders of images and videos apart and is given both.
    """
    started = seconds_now(model.device)
    outputs: dict[Kind, ModelOutput] = dict(inputs.get("mm_encoder_outputs") or {})
    consumed = {"mm_encoder_outputs"}
    for kind in PIXEL_INPUTS:
        if pixels_of(inputs, kind) is None:
            continue
        if kind not in family.kinds:
            raise PruningError(f"{family.name!r} is pruned with {' and '.join(family.kinds)} inputs, got {kind}s")
        outputs[kind], used = run_encoder(model, kind, inputs)
        consumed |= used
    seconds = seconds_now(model.device) - started
    if len({family.placeholders[kind] for kind in outputs}) < len(outputs):
        raise PruningError(
            f"images and videos must come in calls of their own: {family.name!r} marks both with one placeholder, and "
            "transformers refuses the mixture"
        )
    placeholders = {kind: inputs["input_ids"] == getattr(model.config, family.placeholders[kind]) for kind in outputs}
    first = _first_column(outputs, placeholders, past_length)
    items = []
    for kind, output in outputs.items():
        placeholders[kind][:, :first] = False
        items += _items(model, family, inputs, kind, output, placeholders[kind])
    items = [item for item in items if int(item.columns[0]) >= past_length]
    return Encoding(outputs, items, consumed, seconds, first)


def _first_column(outputs: Mapping[Kind, ModelOutput], placeholders: Mapping[Kind, Tensor], past_length: int) -> int:
    """Column from which on there are as many placeholders as visual tokens; `past_length` if there is none."""
    counts = {kind: len(flat_tokens(output["pooler_output"])) for kind, output in outputs.items()}
    for first in (past_length, 0):
        if all(int(placeholders[kind][:, first:].sum()) == count for kind, count in counts.items()):
            return first
    return past_length


def seconds_now(device: torch.device) -> float:
    """A clock that waits for the device to finish its work first."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _items(
    model: PreTrainedModel,
    family: Family,
    inputs: Mapping[str, Any],
    kind: Kind,
    output: ModelOutput,
    placeholder_mask: Tensor,
) -> list[VisualItem]:
    tokens = flat_tokens(output["pooler_output"])
    token_id = getattr(model.config, family.placeholders[kind])
    rows, columns = placeholder_mask.nonzero(as_tuple=True)
    if len(rows) != len(tokens):
        raise PruningError(
            f"input_ids must hold one placeholder for each visual token: got {len(rows)} placeholders (id {token_id}) "
            f"for {len(tokens)} {kind} tokens {entry_sizes(inputs, kind, output, placeholder_mask)}; pass text and "
            "pictures through the model's processor together"
        )
    # Rows of text alone may come with an empty entry.
    sizes = [size for size in family.item_sizes(inputs, kind, output, placeholder_mask) if size]
    items, start = [], 0
    for index, (item_rows, item_columns) in enumerate(zip(rows.split(sizes), columns.split(sizes), strict=True)):
        if int(item_rows[0]) != int(item_rows[-1]):
            raise PruningError(
                f"the placeholders of {kind} {index} span rows {int(item_rows[0])} to {int(item_rows[-1])}; "
                "give every row as many placeholders as its pictures have tokens"
            )
        layout = (
            family.layout(model, inputs, kind, index, sizes[index]) if pixels_of(inputs, kind) is not None else None
        )
        visual_tokens = tokens[start : start + sizes[index]]
        pieces = pieces_of(layout, sizes[index], _entry_size(output))
        items.append(VisualItem(kind, int(item_rows[0]), item_columns, visual_tokens, layout, start, pieces=pieces))
        start += sizes[index]
    return items


def _entry_size(output: ModelOutput) -> int:
    """Tokens of each of the encoder's entries; 0 if they differ."""
    sizes = {entry.numel() // entry.shape[-1] for entry in output["pooler_output"]}
    return sizes.pop() if len(sizes) == 1 else 0
