"""What the vision encoder made of an image as a file: safetensors, with the nesting of the tensors beside them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import ModelOutput

from divprune.methods.vision_inputs import CapturedVision
from divprune.outputs import write_whole

_LAYOUT = "layout"


def encoder_output(fields: Mapping[str, Any]) -> ModelOutput:
    """Return what an encoder gives, also with fields that only some families have."""
    output = BaseModelOutputWithPooling()
    for name, value in fields.items():
        output[name] = value
    return output


def save_encoded(path: Path, output: ModelOutput, captured: CapturedVision | None) -> None:
    """Write one pass of the encoder, whole or not at all.

    Raises:
        OSError: The disk takes no more.
    """
    tensors: dict[str, Tensor] = {}
    parts = {"output": dict(output), "captured": None if captured is None else dict(captured.pieces)}
    layout = {name: _laid_out(value, tensors) for name, value in parts.items()}
    write_whole(path, save(tensors, metadata={_LAYOUT: json.dumps(layout)}))


def load_encoded(path: Path) -> tuple[ModelOutput, CapturedVision | None] | None:
    """Read one pass of the encoder, on the CPU; None if there is no such file, or it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            layout = json.loads(file.metadata()[_LAYOUT])
            found = {name: _read(value, file) for name, value in layout.items()}
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    output = encoder_output(found["output"])
    return output, None if found["captured"] is None else CapturedVision(found["captured"])


def _laid_out(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the nesting of a value, with names in place of its tensors, which are collected."""
    if isinstance(value, dict):
        return {name: _laid_out(each, tensors) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_laid_out(each, tensors) for each in value]
    if not isinstance(value, Tensor):
        return None
    name = str(len(tensors))
    tensors[name] = value.contiguous()
    return name


def _read(layout: Any, file: Any) -> Any:
    if isinstance(layout, dict):
        return {name: _read(each, file) for name, each in layout.items()}
    if isinstance(layout, list):
        return [_read(each, file) for each in layout]
    return None if layout is None else cast(Tensor, file.get_tensor(layout))
