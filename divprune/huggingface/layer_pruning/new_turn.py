"""The part of a call that is new: all of a first turn's prompt, or what follows the tokens that a cache holds."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
import torch.nn.functional as functional
from torch import Tensor

from divprune.errors import PruningError
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.call import Call
from divprune.huggingface.layer_pruning.state import DroppedPrompt, full_length
from divprune.huggingface.model_inputs import TYPE_INPUTS, without_cache


@dataclass(frozen=True)
class Turn:
    """One call's own tokens.

    Attributes:
        input_ids: (B, n) int64.
        attention_mask: (B, start + n), that of the whole conversation.
        start: tokens in the cache before this turn.
        before: what was dropped from them; None if every layer holds all.
    """

    input_ids: Tensor
    attention_mask: Tensor
    start: int
    before: DroppedPrompt | None

    @cached_property
    def own_mask(self) -> Tensor:
        """(B, n) the turn's own part of the mask."""
        return self.attention_mask[:, self.start :]


def turn_of(call: Call) -> Turn:
    """Read what is new in a call.

    Raises:
        PruningError: there are no ids, the cache was pruned before the LLM, or the lengths do not fit.
    """
    ids, attention_mask = call.input_ids, call.conversation_mask()
    start = 0 if call.cache is None else full_length(call.cache)
    if start == 0:
        return Turn(ids, attention_mask, 0, None)
    if call.past is not None and call.past.prompt.is_pruned:
        raise PruningError(
            "the cache holds a prompt that was pruned before the LLM, got a method that drops inside "
            "it; pass the whole conversation with its images and without the cache"
        )
    num_new = attention_mask.shape[1] - start
    if num_new < 1 or ids.shape[1] not in (num_new, attention_mask.shape[1]):
        raise PruningError(
            f"attention_mask must cover the {start} cached tokens and the new ones, and input_ids all of them or the "
            f"new ones, got {attention_mask.shape[1]} columns of mask and {ids.shape[1]} ids"
        )
    return Turn(ids[:, -num_new:], attention_mask, start, call.dropped)


def full_types(turn: Turn, inputs: dict[str, Any]) -> dict[str, Tensor]:
    """Return the token types of the whole conversation: masks of later turns count them from its start.

    Where only the turn's own types are given, those before count as text: their tokens are in the cache.
    """
    given = {name: inputs[name] for name in TYPE_INPUTS if isinstance(inputs.get(name), Tensor)}
    missing = {name: turn.attention_mask.shape[1] - types.shape[1] for name, types in given.items()}
    return {name: functional.pad(types, (missing[name], 0)) for name, types in given.items() if missing[name]}


def turn_positions(adapter: ModelAdapter, turn: Turn, inputs: dict[str, Any]) -> Tensor | None:
    """(r, B, n) M-RoPE positions of a turn's tokens; None if the model counts or the caller gives them.

    The r rows are the model's axes, in most models behind a row that counts tokens.

    Also sets the model's `rope_deltas`, by which it goes on counting.
    """
    if not adapter.family.has_coordinates or inputs.get("position_ids") is not None:
        return None
    # From the turn's own ids and images, as if it began here.
    own = without_cache(inputs)
    types = {name: inputs[name][:, -turn.input_ids.shape[1] :] for name in TYPE_INPUTS if name in inputs}
    own |= {**types, "input_ids": turn.input_ids, "attention_mask": turn.own_mask}
    before = _shift_before(adapter, turn) + turn.attention_mask[:, : turn.start].sum(dim=-1)
    positions = adapter.own_positions(own) + before[..., None]
    if len(positions) > adapter.num_axes:
        positions[0] = text_positions(turn)
    cast(Any, adapter.model.base_model).rope_deltas = position_shift(adapter, turn, positions)[-1][:, None]
    return positions


def text_positions(turn: Turn) -> Tensor:
    """(B, n) positions of a turn's tokens counted over the attended ones, 0 at padding."""
    counted = turn.attention_mask.long().cumsum(dim=-1) - 1
    return counted.masked_fill(turn.attention_mask == 0, 0)[:, turn.start :]


def position_shift(adapter: ModelAdapter, turn: Turn, positions: Tensor) -> Tensor:
    """(r, B) what each row of positions adds to the count of attended tokens behind a turn that has `positions`."""
    axes = adapter.num_axes
    indices = torch.arange(turn.own_mask.shape[1], device=turn.own_mask.device)
    last = (indices * turn.own_mask.bool()).amax(dim=-1)
    at_last = positions.gather(-1, last.expand(len(positions), -1)[..., None]).squeeze(-1)
    # Text goes on behind an image's last row and column, on every axis.
    at_last = torch.cat([at_last[:-axes], at_last[-axes:].amax(dim=0).expand(axes, -1)])
    return at_last + 1 - turn.attention_mask.long().sum(dim=-1)


def continued_turn_positions(prompt: DroppedPrompt, turn: Turn) -> Tensor | None:
    """(r, B, n) M-RoPE positions of a turn of text alone behind a pruned prompt; None for models that count."""
    if prompt.position_shift is None:
        return None
    counted = text_positions(turn)
    shift = prompt.position_shift.repeat_interleave(prompt.copies(len(counted)), dim=1)
    return counted + shift[..., None]


def _shift_before(adapter: ModelAdapter, turn: Turn) -> Tensor:
    """(r or 1, B) what M-RoPE adds to the count of attended tokens when a turn begins."""
    nothing = torch.zeros(1, len(turn.input_ids), dtype=torch.int64, device=turn.input_ids.device)
    if turn.start == 0:
        return nothing
    if turn.before is not None and turn.before.position_shift is not None:
        return turn.before.position_shift
    deltas = getattr(adapter.model.base_model, "rope_deltas", None)
    return nothing if deltas is None else nothing + deltas.to(nothing.device).reshape(1, -1)
