"""Original positions where they count tokens: what that changes in a model's configuration before it is built.

vLLM numbers a pruned prompt anew, and takes other positions from models with M-RoPE alone. So the configuration is made
to ask for M-RoPE at its top, which is where vLLM's runner looks; the language model's own part, by which rotary
embeddings are made, keeps plain RoPE, with tables that reach as far as the positions of a pruned prompt.
"""

import logging
from typing import Any

from divprune.vllm_plugin.settings import PruningSettings

POSITIONS_FACTOR = 4
"""Tables of angles reach so many times as far as the longest prompt that a model was trained with; vLLM's own of M-RoPE
do."""
SECTION = {"mrope_section": [1, 1, 1]}
"""Tells vLLM's runner to ask the model for positions; nothing reads how it divides the angles."""

_logger = logging.getLogger("vllm.divprune")


def keep_positions(model_config: Any, settings: PruningSettings) -> None:
    """Have a model's kept tokens keep their positions, if it is asked to and can; where it cannot, say so.

    Args:
        model_config: vLLM's `ModelConfig`, before the model is built.
        settings: What the user asked for.

    Raises:
        ValueError: Coordinates shall be numbered anew.
    """
    if model_config.uses_mrope:
        if settings.positions == "compact":
            raise ValueError(
                "positions must be 'original' or left out for this model, got 'compact': its positions are (frame, "
                "row, column) coordinates, which must stay with their tokens"
            )
        return
    if settings.positions == "compact":
        return
    text = model_config.hf_text_config
    parameters = getattr(text, "rope_parameters", None)
    kind = parameters.get("rope_type", "default") if isinstance(parameters, dict) else None
    if kind != "default":
        asked = f"RoPE of type {kind!r}" if kind else "no RoPE that is known here"
        message = f"kept tokens are numbered anew (compact positions): the language model has {asked}"
        if settings.positions == "original":
            raise ValueError(f"positions must be 'compact' or left out for this model, got 'original': {message}")
        _logger.warning(message)
        return
    model_config.hf_config.rope_parameters = dict(SECTION)
    text.max_position_embeddings *= POSITIONS_FACTOR


def counts_tokens(model_config: Any) -> bool:
    """Tell whether `keep_positions` changed a configuration."""
    return getattr(model_config.hf_config, "rope_parameters", None) == SECTION


def num_positions(model_config: Any) -> int:
    """Return how far the tables of angles must reach that a model with positions of its own is built with."""
    factor = 1 if counts_tokens(model_config) else POSITIONS_FACTOR
    return factor * int(model_config.hf_text_config.max_position_embeddings)
