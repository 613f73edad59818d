"""Position ids of a shortened prompt, in its first turn and in later ones.

Models count tokens, (B, L), or have (frame, row, column) coordinates (M-RoPE), (4, B, L) with a row for masks first.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from divprune.errors import PruningError
from divprune.huggingface.cache_names import without_cache
from divprune.huggingface.encoding.encode import Encoding
from divprune.huggingface.gather_columns import compact_positions, take_columns
from divprune.huggingface.input_pruning.cache import Past
from divprune.huggingface.input_pruning.continuation import TYPE_INPUTS


def full_positions(model: PreTrainedModel, mode: str, inputs: dict[str, Any], attention_mask: Tensor) -> Tensor | None:
    """Position ids of the original prompt; None if the model shall count the short one by itself."""
    given: Tensor | None = inputs.get("position_ids")
    if given is not None or mode == "compact":
        return given
    return _own_positions(model, {**inputs, "attention_mask": attention_mask})


def taken_positions(
    model: PreTrainedModel, positions: Tensor | None, attention_mask: Tensor, source: Tensor
) -> Tensor | None:
    """Position ids (..., B, L) of the original prompt -> those of the short one, (..., B, L')."""
    if positions is None:
        return None
    taken = take_columns(positions, source, 0)
    if taken.ndim == 3 and taken.shape[0] == num_axes(model) + 1:
        # The text row only serves masks, and gaps in it would be read as packed sequences.
        taken[0] = compact_positions(take_columns(attention_mask, source, 0))
    return taken


def next_position(model: PreTrainedModel, positions: Tensor | None, attention_mask: Tensor) -> Tensor | None:
    """(B,) M-RoPE coordinate of the token after the prompt; None for other positions."""
    if positions is None or positions.ndim != 3:
        return None
    last = attention_mask.bool().long().cumsum(-1).argmax(dim=-1)
    return positions[-num_axes(model) :, torch.arange(len(last)), last].amax(dim=0) + 1


def continued_positions(
    model: PreTrainedModel,
    inputs: dict[str, Any],
    attention_mask: Tensor,
    source: Tensor,
    past: Past,
    encoding: Encoding,
) -> tuple[Tensor | None, Tensor | None]:
    """Position ids of a later turn; those of cached columns are not read by anyone.

    Returns:
        (..., B, L) of the conversation and (..., B, L') of the short one, or None twice: the model counts by itself.

    Raises:
        PruningError: the turns before had position ids of another kind.
    """
    given: Tensor | None = inputs.get("position_ids")
    prompt = past.prompt
    if (given is not None) != prompt.positions_given and (prompt.positions == "compact" or given is None):
        raise PruningError(
            f"position_ids must {'' if given is None else 'not '}be given: the cache was filled "
            f"with{'out' if given is not None else ''} them"
        )
    if given is None and prompt.positions == "compact":
        return None, None
    if given is not None:
        positions = _behind(given, attention_mask.shape[1])
    elif prompt.next_position is None:
        positions = compact_positions(attention_mask)
    else:
        positions = _coordinates(model, inputs, attention_mask, past, prompt.next_position, encoding)
    return positions, taken_positions(model, positions, attention_mask, source)


def _coordinates(
    model: PreTrainedModel,
    inputs: dict[str, Any],
    attention_mask: Tensor,
    past: Past,
    next_position: Tensor,
    encoding: Encoding,
) -> Tensor:
    """(4, B, L) M-RoPE positions of a conversation; only those behind the cached columns are meant."""
    everything = without_cache(inputs)
    if encoding.items and encoding.first_column < past.length:
        return _own_positions(model, {**everything, "attention_mask": attention_mask})
    new_mask = attention_mask[:, past.length :]
    if encoding.items:
        new = {**everything, "attention_mask": new_mask, "input_ids": inputs["input_ids"][:, past.length :]}
        new |= {name: inputs[name][:, past.length :] for name in TYPE_INPUTS if inputs.get(name) is not None}
        positions = _own_positions(model, new)
    else:
        positions = compact_positions(new_mask).expand(4, -1, -1)
    generated = attention_mask[:, past.prompt.length : past.length].bool().sum(dim=-1)
    positions = positions + (next_position.to(generated.device) + generated)[:, None]
    return _behind(positions, attention_mask.shape[1])


def num_axes(model: PreTrainedModel) -> int:
    """Axes of the model's coordinates: frame, row, column, unless its configuration names more."""
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    return len(rope.get("mrope_section") or (0, 0, 0))


def _own_positions(model: PreTrainedModel, inputs: dict[str, Any]) -> Tensor:
    """The model's own position ids of a prompt: (B, L), or (4, B, L)."""
    prepare = cast(Callable[..., Tensor], model._prepare_position_ids_for_generation)
    return prepare(inputs["input_ids"], inputs)


def _behind(positions: Tensor, length: int) -> Tensor:
    """Positions of the last columns -> of `length` columns, 0 before."""
    return torch.nn.functional.pad(positions, (length - positions.shape[-1], 0))
