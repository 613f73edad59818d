"""What `generate` needs around a shortened prompt: the mask, length limits, the returned sequences, refusals."""

import copy
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from divprune.errors import PruningError
from divprune.huggingface.gather_columns import restore_sequences
from divprune.huggingface.input_pruning.cache import Past


def generation_setting(model: PreTrainedModel, inputs: dict[str, Any], name: str) -> Any:
    """A generation setting as `generate` resolves it: argument, then `generation_config`, then the model's own."""
    for value in (
        inputs.get(name),
        getattr(inputs.get("generation_config"), name, None),
        getattr(model.generation_config, name, None),
    ):
        if value is not None:
            return value
    return None


def full_attention_mask(model: PreTrainedModel, inputs: dict[str, Any]) -> Tensor | None:
    """The (B, L) mask over the original prompt; without one, padding is told by its id as `generate` does.

    Returns:
        (B, L) int64 or bool; None if the call has no `input_ids`.

    Raises:
        PruningError: the mask is not two-dimensional.
    """
    input_ids: Tensor | None = inputs.get("input_ids")
    mask: Tensor | None = inputs.get("attention_mask")
    if mask is not None:
        if mask.ndim != 2:
            raise PruningError(f"attention_mask must have shape (batch, length), got {tuple(mask.shape)}")
        return mask
    if input_ids is None:
        return None
    padding = generation_setting(model, inputs, "pad_token_id")
    ends = generation_setting(model, inputs, "eos_token_id")
    ends = ends if isinstance(ends, list) else [ends]
    if padding is None or padding in ends:
        return torch.ones_like(input_ids)
    return input_ids.ne(padding).long()


def refuse_unsupported(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    """Refuses the ways of generating that would be silently wrong.

    Raises:
        PruningError: paged batching, or an assistant model.
    """
    if generation_setting(model, inputs, "cache_implementation") == "paged":
        raise PruningError("cache_implementation must not be 'paged' while the model is pruned: it takes no pictures")
    if inputs.get("assistant_model") is not None:
        raise PruningError("assistant_model must be None while the model is pruned: it would see another prompt")


def shift_lengths(model: PreTrainedModel, inputs: dict[str, Any], dropped: int) -> None:
    """Moves `max_length` and `min_length`, which count the prompt, by the dropped columns; changes `inputs`."""
    for name, new_tokens in (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")):
        limit = generation_setting(model, inputs, name)
        if not limit or generation_setting(model, inputs, new_tokens) is not None:
            continue
        if inputs.get(name) is None and inputs.get("generation_config") is not None:
            inputs["generation_config"] = copy.deepcopy(inputs["generation_config"])
            setattr(inputs["generation_config"], name, max(limit - dropped, 0))
        else:
            inputs[name] = max(limit - dropped, 0)


def keep_mask_alive(model: PreTrainedModel, inputs: dict[str, Any], past: Past | None) -> dict[str, Any]:
    """Adds one padded column where positions with gaps would be read as packed sequences.

    `generate` drops a mask of ones. Without a mask and without a cache (or under flash attention) transformers takes a
    gap in 1-D position ids for the border of two sequences and stops attention there. One padded column keeps the mask.
    """
    positions = inputs.get("position_ids")
    has_gaps = positions is not None and positions.ndim == 2 and bool((positions.diff(dim=-1) != 1).any())
    attention = str(model.config.get_text_config()._attn_implementation)
    if past is not None and has_gaps and "flash" in attention:
        raise PruningError(
            "positions must be 'compact' to continue from a kept cache under flash attention, which reads gaps in the "
            "position ids as borders between sequences"
        )
    unmasked = generation_setting(model, inputs, "use_cache") is False or "flash" in attention
    if past is not None or not (has_gaps and unmasked and bool(inputs["attention_mask"].all())):
        return inputs
    columns = inputs["input_ids"].shape
    per_token = [name for name, value in inputs.items() if isinstance(value, Tensor) and value.shape == columns]
    return inputs | {name: functional.pad(inputs[name], (1, 0)) for name in per_token}


def restore_output(output: Any, prompt_ids: Tensor, short_length: int) -> Any:
    """Puts the original prompt back into what `generate` returned.

    Args:
        output: (B * n, L' + new) sequences, or the model output that holds them.
        prompt_ids: (B, L) the original prompt.
        short_length: L'.
    """
    if isinstance(output, Tensor):
        return restore_sequences(output, prompt_ids, short_length)
    if isinstance(output, ModelOutput):
        output["sequences"] = restore_sequences(output["sequences"], prompt_ids, short_length)
    return output
