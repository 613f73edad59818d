"""Which model a calibration is of."""

import hashlib
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from divprune.errors import CalibrationError, UnsupportedModelError


def fingerprint(model: PreTrainedModel) -> str:
    """Return a short text that tells models apart: type, size, and a hash of the weights that end the language model.

    The hash is of the output layer's first rows and does not depend on whether weights are held in float32 or bfloat16.

    Raises:
        UnsupportedModelError: the weights are not in memory.
    """
    head = cast(Any, model.get_output_embeddings()).weight
    if head.device.type == "meta":
        raise UnsupportedModelError("the output layer must be in memory to tell the model, got one that is offloaded")
    rows = head[:16].detach().to("cpu", torch.bfloat16).contiguous()
    digest = hashlib.sha256(rows.view(torch.uint8).numpy().tobytes()).hexdigest()[:16]
    config = model.config.get_text_config()
    return f"{model.config.model_type}, {config.num_hidden_layers} layers of {config.hidden_size}, weights {digest}"


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
