"""Model inputs -> visual tokens per image or video, and where their placeholders stand in the prompt."""

import copy
import inspect
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from divprune.errors import PruningError
from divprune.huggingface.families import Family, Kind
from divprune.huggingface.layouts import Layout

PIXEL_INPUTS: dict[Kind, str] = {"image": "pixel_values", "video": "pixel_values_videos"}


@dataclass(frozen=True)
class VisualItem:
    """One image or video: its visual tokens and the placeholders that they fill.

    Attributes:
        kind: "image" or "video".
        row: row of the batch.
        columns: (M,) int64 prompt columns of the placeholders, ascending.
        visual_tokens: (M, d) after the projector, in the language model's embedding space.
        layout: where the tokens sit in the picture, None if unknown.
    """

    kind: Kind
    row: int
    columns: Tensor
    visual_tokens: Tensor
    layout: Layout | None


@dataclass(frozen=True)
class Encoding:
    """What the vision encoder made of a call.

    Attributes:
        outputs: the encoder's output per kind, as `mm_encoder_outputs` takes them.
        items: every image and video; those of one kind in the order in which their placeholders stand.
        consumed: names of the inputs that the encoder has used up.
        seconds: wall time of the encoder.
    """

    outputs: dict[Kind, ModelOutput]
    items: list[VisualItem]
    consumed: set[str]
    seconds: float


def has_visual_inputs(inputs: Mapping[str, Any]) -> bool:
    """Whether a call brings pictures or videos, raw or already encoded."""
    names = (*PIXEL_INPUTS.values(), "mm_encoder_outputs")
    return any(inputs.get(name) is not None for name in names)


def encode(model: PreTrainedModel, family: Family, inputs: Mapping[str, Any]) -> Encoding:
    """Runs the model's own vision encoder and projector and finds each item's placeholders.

    Args:
        model: the model to prune.
        family: its family.
        inputs: what `generate` or `forward` was called with; `input_ids` (B, L) among it.

    Raises:
        PruningError: placeholders and features do not match, or an item's placeholders span two rows.
    """
    started = seconds_now(model.device)
    outputs: dict[Kind, ModelOutput] = dict(inputs.get("mm_encoder_outputs") or {})
    consumed = {"mm_encoder_outputs"}
    for kind in family.kinds:
        if inputs.get(PIXEL_INPUTS[kind]) is None:
            continue
        encoder = getattr(model.base_model, f"get_{kind}_features")
        # As transformers' own generate does: the encoder takes, and uses up, whatever its signature names.
        arguments = {name: inputs[name] for name in inspect.signature(encoder).parameters if name in inputs}
        outputs[kind] = encoder(**arguments, return_dict=True)
        consumed |= arguments.keys()
    seconds = seconds_now(model.device) - started
    items = [item for kind, output in outputs.items() for item in _items(model, family, inputs, kind, output)]
    return Encoding(outputs, items, consumed, seconds)


def pruned_output(output: ModelOutput, kept_tokens: list[Tensor]) -> ModelOutput:
    """A copy of an encoder's output that holds the kept visual tokens, [(k, d), ...]."""
    pruned = copy.copy(output)
    pruned["pooler_output"] = kept_tokens
    return pruned


def seconds_now(device: torch.device) -> float:
    """A clock that waits for the device to finish its work first."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _items(
    model: PreTrainedModel, family: Family, inputs: Mapping[str, Any], kind: Kind, output: ModelOutput
) -> list[VisualItem]:
    tokens = [features.reshape(-1, features.shape[-1]) for features in output["pooler_output"]]
    counts = [len(item) for item in tokens]
    token_id = getattr(model.config, f"{kind}_token_id")
    rows, columns = (inputs["input_ids"] == token_id).nonzero(as_tuple=True)
    if len(rows) != sum(counts):
        raise PruningError(
            f"input_ids must hold one placeholder for each visual token: got {len(rows)} placeholders (id {token_id}) "
            f"for {sum(counts)} {kind} tokens {counts}; pass text and pictures through the model's processor together"
        )
    items = []
    for index, (item_rows, item_columns) in enumerate(zip(rows.split(counts), columns.split(counts), strict=True)):
        if len(item_rows) and int(item_rows[0]) != int(item_rows[-1]):
            raise PruningError(
                f"the placeholders of {kind} {index} span rows {int(item_rows[0])} to {int(item_rows[-1])}; "
                "give every row as many placeholders as its pictures have tokens"
            )
        layout = family.layout(model, inputs, kind, index, counts[index]) if _has_raw(inputs, kind) else None
        items.append(VisualItem(kind, int(item_rows[0]), item_columns, tokens[index], layout))
    return items


def _has_raw(inputs: Mapping[str, Any], kind: Kind) -> bool:
    return inputs.get(PIXEL_INPUTS[kind]) is not None
