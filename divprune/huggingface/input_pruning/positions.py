"""Position ids of a pruned prompt, in its first turn and in later ones; inside the LLM `layer_pruning/new_turn.py`.

Models count tokens, (B, L), or have (frame, row, column) coordinates (M-RoPE), (r, B, L): an axis a row, in most models
behind a text row, which serves masks. `next_position` is what transformers tells as `rope_deltas`, from another zero.

```
ids           bos  V  V  V  V  how  ?   two
kept               *        *
"original"    0    1        4  5    6   7    each kept token keeps its own; the next one is 7
"compact"     0    1        2  3    4   5    as if the others had never been there; the next one is 5
M-RoPE        0    1,1,1    1,2,2   3   4    (frame, row, column); text goes on after the largest coordinate
```
"""

from typing import Any

import torch
from torch import Tensor

from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.encoding.items import Encoding
from divprune.huggingface.gather_tokens import compact_positions, gather_tokens
from divprune.huggingface.input_pruning.cache import Past
from divprune.huggingface.input_pruning.checks import require_same_kind_of_positions
from divprune.huggingface.model_inputs import TYPE_INPUTS, without_cache


def first_positions(
    adapter: ModelAdapter, mode: str, inputs: dict[str, Any], attention_mask: Tensor, gather_index: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Position ids of a first turn.

    Returns:
        (..., B, L) of the original prompt and (..., B, L') of the pruned one; None twice if the model counts by itself.
    """
    positions: Tensor | None = inputs.get("position_ids")
    if positions is None and mode == "compact":
        return None, None
    if positions is None and not adapter.family.has_coordinates:
        positions = compact_positions(attention_mask)
        return positions, gather_tokens(positions, gather_index, 0)
    if positions is None:
        positions = adapter.own_positions({**inputs, "attention_mask": attention_mask})
    return positions, _taken(adapter, positions, attention_mask, gather_index)


def _taken(adapter: ModelAdapter, positions: Tensor, attention_mask: Tensor, gather_index: Tensor) -> Tensor:
    """Position ids (..., B, L) of the original prompt -> those of the pruned one, (..., B, L')."""
    taken = gather_tokens(positions, gather_index, 0)
    if taken.ndim == 3 and taken.shape[0] == adapter.num_axes + 1:
        # The text row only serves masks, and gaps in it would be read as packed sequences.
        taken[0] = compact_positions(gather_tokens(attention_mask, gather_index, 0))
    return taken


def next_position(adapter: ModelAdapter, positions: Tensor, attention_mask: Tensor) -> Tensor:
    """(B,) M-RoPE coordinate of the token after the prompt."""
    last = attention_mask.bool().long().cumsum(-1).argmax(dim=-1)
    return positions[-adapter.num_axes :, torch.arange(len(last)), last].amax(dim=0) + 1


def continued_positions(
    adapter: ModelAdapter,
    inputs: dict[str, Any],
    attention_mask: Tensor,
    gather_index: Tensor,
    past: Past,
    encoding: Encoding,
) -> tuple[Tensor | None, Tensor | None]:
    """Position ids of a later turn; those of cached indices are not read by anyone.

    Returns:
        (..., B, L) of the conversation and (..., B, L') of the pruned one, or None twice: the model counts by itself.

    Raises:
        PruningError: the turns before had position ids of another kind.
    """
    given: Tensor | None = inputs.get("position_ids")
    prompt = past.prompt
    require_same_kind_of_positions(given, past)
    if given is None and prompt.positions == "compact":
        return None, None
    if given is not None:
        positions = _behind(given, attention_mask.shape[1])
    elif prompt.next_position is None:
        positions = compact_positions(attention_mask)
    else:
        positions = _coordinates(adapter, inputs, attention_mask, past, prompt.next_position, encoding)
    return positions, _taken(adapter, positions, attention_mask, gather_index)


def _coordinates(
    adapter: ModelAdapter,
    inputs: dict[str, Any],
    attention_mask: Tensor,
    past: Past,
    next_position: Tensor,
    encoding: Encoding,
) -> Tensor:
    """(r, B, L) M-RoPE positions of a conversation; only those behind the cached indices are meant."""
    everything = without_cache(inputs)
    if encoding.items and encoding.first_column < past.length:
        return adapter.own_positions({**everything, "attention_mask": attention_mask})
    new_mask = attention_mask[:, past.length :]
    if encoding.items:
        new = {**everything, "attention_mask": new_mask, "input_ids": inputs["input_ids"][:, past.length :]}
        new |= {name: inputs[name][:, past.length :] for name in TYPE_INPUTS if inputs.get(name) is not None}
        positions = adapter.own_positions(new)
    else:
        # Models whose three axes have no text row before them take one as well.
        positions = compact_positions(new_mask).expand(max(4, adapter.num_axes), -1, -1)
    generated = attention_mask[:, past.prompt.length : past.length].bool().sum(dim=-1)
    positions = positions + (next_position.to(generated.device) + generated)[:, None]
    return _behind(positions, attention_mask.shape[1])


def _behind(positions: Tensor, length: int) -> Tensor:
    """Positions of the last indices -> of `length` indices, 0 before."""
    return torch.nn.functional.pad(positions, (length - positions.shape[-1], 0))
