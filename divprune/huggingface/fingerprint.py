"""Which model a calibration is of: told by its weights, in memory or on disk."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from divprune.errors import CalibrationError, UnsupportedModelError

_ROWS = 16


def fingerprint(model: PreTrainedModel) -> str:
    """Return a short text that tells models apart: type, size, and a hash of the weights that end the language model.

    The hash is of the output layer's first rows and does not depend on whether weights are held in float32 or bfloat16.

    Raises:
        UnsupportedModelError: the weights are not in memory.
    """
    head = cast(Any, model.get_output_embeddings()).weight
    if head.device.type == "meta":
        raise UnsupportedModelError("the output layer must be in memory to tell the model, got one that is offloaded")
    return f"{_shape(model.config)}, weights {_digest(head[:_ROWS])}"


def checkpoint_fingerprint(folder: Path) -> str:
    """Return the `fingerprint` of a checkpoint's model, without loading it.

    Args:
        folder: With a config.json; without weights beside it, the part that the config tells is returned.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    rows = _output_rows(folder)
    return _shape(config) if rows is None else f"{_shape(config)}, weights {_digest(rows)}"


def _shape(config: PreTrainedConfig) -> str:
    text = config.get_text_config()
    return f"{config.model_type}, {text.num_hidden_layers} layers of {text.hidden_size}"


def _digest(rows: Tensor) -> str:
    plain = rows.detach().to("cpu", torch.bfloat16).contiguous()
    return hashlib.sha256(plain.view(torch.uint8).numpy().tobytes()).hexdigest()[:16]


def _output_rows(folder: Path) -> Tensor | None:
    """Read the first rows of the output layer, or of the input embeddings that are tied to it."""
    homes: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as weights:
            homes |= dict.fromkeys(weights.keys(), path)
    name = _named(homes, "lm_head.weight") or _named(homes, "embed_tokens.weight")
    if name is None:
        return None
    with safe_open(homes[name], framework="pt") as weights:
        rows: Tensor = weights.get_slice(name)[:_ROWS]
    return rows


def _named(homes: Mapping[str, Path], ending: str) -> str | None:
    return next((name for name in homes if name.endswith(ending)), None)


def require_same_model(model: PreTrainedModel, calibrated: str, remedy: str) -> None:
    """Refuse a calibration of another model.

    Args:
        model: what is about to be pruned.
        calibrated: fingerprint of the model that was calibrated.
        remedy: what to do instead.

    Raises:
        CalibrationError: the fingerprints differ.
    """
    seen = fingerprint(model)
    if seen != calibrated:
        raise CalibrationError(
            f"calibration must be of this model, expected {seen}, got that of {calibrated}; {remedy}"
        )
