"""What decoder layers still hold of a prompt that lost tokens inside the LLM; travels with its cache.

A conversation grows turn by turn: what a cache held before a turn stays as it is, and the turn's own prompt begins at
full index `start`. *Full* indices count every token of the conversation, dropped or not.

```
fastv:layer=2, 9 visual tokens a turn, 3 kept        turn 1                       turn 2, start = 15
the turn's prompt                                    bos 9 x V how many ? (13)    <answer's last token> 9 x V and ? (12)
held[0]             full indices in the cache        none                         0 .. 14
gather_indices[0]   counted from start               0 .. 12                      0 .. 11
layers 0, 1         cached after the prompt          13, and 2 of the answer      15 + 12 = 27 = stop
held[1]                                              none                         0, 1, 6, 9, 10, .. 14  (9)
gather_indices[1]                                    0, 1, 6, 9, 10, 11, 12       0, 2, 4, 5, 10, 11     (6)
layers from 2 on    cached after the prompt          7, and 2 of the answer       9 + 6 = 15
```
"""

import copy
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from divprune.errors import PruningError
from divprune.huggingface.gather_tokens import PADDING, with_later_tokens
from divprune.huggingface.wrapping import replaced

DROPPED_PROMPT = "__divprune_dropped_prompt__"
"""Name under which a `DroppedPrompt` hangs on the cache."""


@dataclass
class DroppedPrompt:
    """Which tokens of a turn's prompt (B, L), and of what came before it, each decoder layer still holds.

    A *stage* is a run of layers that hold the same: stage 0 holds everything, stage s begins at `layers[s - 1]`.

    Attributes:
        layers: the layers at whose entrance tokens are dropped, ascending. If the first is 0, no layer holds all,
            and the cache tells the full length only while a call is under way, see `sized_at_full_length`.
        held: for each stage (B, n) int64: the full indices that the cache held when the turn began.
        start: the full index at which the turn's prompt begins.
        gather_indices: for each stage that has begun: (B, L') int64 indices of the turn's prompt, counted from
            `start`, see `gather_index_of`; the first is 0, 1, ..., L - 1 for every row.
        ragged: for each of `gather_indices`, whether some of its rows, or of what was held before, are padded.
        position_shift: (r, B) int64 for M-RoPE: position of a later text token in each of the model's rows of position
            ids, less the attended tokens before it.
    """

    layers: tuple[int, ...]
    held: list[Tensor]
    start: int = 0
    gather_indices: list[Tensor] = field(default_factory=list)
    ragged: list[bool] = field(default_factory=list)
    position_shift: Tensor | None = None

    @classmethod
    def of(
        cls, input_ids: Tensor, layers: tuple[int, ...], start: int = 0, before: "DroppedPrompt | None" = None
    ) -> "DroppedPrompt":
        """Return the prompt `input_ids` (B, L), of which nothing is dropped yet.

        Args:
            input_ids: the turn's own ids.
            layers: where tokens will be dropped.
            start: tokens in the cache before the turn.
            before: what was dropped from them; None if the cache holds all of them in every layer.
        """
        batch_size, length = input_ids.shape
        if before is None:
            everything = torch.arange(start, device=input_ids.device).expand(batch_size, -1)
            held = [everything] * (len(layers) + 1)
        else:
            held = [before.held_at(stage, batch_size, start) for stage in range(len(layers) + 1)]
        prompt = cls(layers, held, start)
        prompt.add(torch.arange(length, device=input_ids.device).expand(batch_size, -1))
        return prompt

    def add(self, gather_index: Tensor) -> None:
        """Begin the next stage, which holds `gather_index` (B, L')."""
        held = self.held[len(self.gather_indices)]
        self.gather_indices.append(gather_index)
        self.ragged.append(bool((gather_index == PADDING).any()) or bool((held == PADDING).any()))

    def entering(self, stage: int) -> "DroppedPrompt":
        """Return the prompt as the first layer of a stage would hold it if no token of the turn were dropped there.

        Its entry for the stage before joins what this stage's layers hold of earlier turns with what is about to enter.
        """
        held, ragged = list(self.held), list(self.ragged)
        held[stage - 1] = held[stage]
        ragged[stage - 1] |= bool((held[stage] == PADDING).any())
        return replace(self, held=held, ragged=ragged)

    @property
    def length(self) -> int:
        """L, indices of the turn's own prompt."""
        return self.gather_indices[0].shape[1]

    @property
    def stop(self) -> int:
        """The full index behind the prompt."""
        return self.start + self.length

    def stage_of(self, layer: int) -> int:
        """Return the number of a layer's stage."""
        return bisect_right(self.layers, layer)

    def copies(self, num_rows: int) -> int:
        """Count how many copies of each prompt (beams, samples) `num_rows` rows are."""
        batch_size = len(self.gather_indices[0])
        if num_rows % batch_size:
            raise PruningError(
                f"the cache must hold the {batch_size} rows that were pruned, or copies of each, got {num_rows}"
            )
        return num_rows // batch_size

    def indices(self, stage: int, num_rows: int, num_tokens: int) -> Tensor:
        """(num_rows, num_tokens) the full index that stands at each place of a stage."""
        gather_index = self.gather_indices[stage]
        own = torch.where(gather_index == PADDING, PADDING, gather_index + self.start)
        indices = torch.cat([self.held[stage].to(own.device), own], dim=-1)
        return with_later_tokens(
            indices.repeat_interleave(self.copies(num_rows), dim=0), self.stop, max(num_tokens, indices.shape[1])
        )[:, :num_tokens]

    def held_at(self, stage: int, num_rows: int, total: int) -> Tensor:
        """(num_rows, n) full indices that a stage holds of the first `total` ones, which include the prompt."""
        return self.indices(stage, num_rows, self._width(stage) + total - self.stop)

    def dropped(self, layer: int) -> int:
        """Count how many indices of what its cache has seen a layer does not hold."""
        stage = self.stage_of(layer)
        if stage < len(self.gather_indices):
            return self.stop - self._width(stage)
        return self.start - self.held[stage].shape[1]

    def sequence_lengths(self, num_layers: int, length: int) -> tuple[int, ...]:
        """Count the tokens that each layer holds of a full sequence of `length` indices, which includes the prompt."""
        held = [self._width(stage) + length - self.stop for stage in range(len(self.gather_indices))]
        return tuple(held[self.stage_of(layer)] for layer in range(num_layers))

    def keep_mask(self, attention_mask: Tensor) -> Tensor:
        """(B, n) bool on the CPU: what the last layers still see of the attended indices of a full sequence."""
        mask = attention_mask.bool().cpu()
        indices = self.held_at(len(self.layers), len(mask), self.stop).cpu()
        kept = torch.zeros(len(indices), self.stop + 1, dtype=torch.bool)
        # An entry more than there are, for padding to write into.
        kept.scatter_(-1, indices.masked_fill(indices == PADDING, self.stop), True)
        mask[:, : self.stop] &= kept[:, :-1]
        return mask

    def _width(self, stage: int) -> int:
        return self.held[stage].shape[1] + self.gather_indices[stage].shape[1]


def dropped_prompt(cache: Any) -> DroppedPrompt | None:
    """Look up what was dropped from the prompt of a cache; None if it is empty or holds everything.

    Raises:
        PruningError: the cache was changed so that its layers no longer fit each other.
    """
    prompt: DroppedPrompt | None = getattr(cache, DROPPED_PROMPT, None)
    if prompt is None:
        return None
    full = full_length(cache)
    if full == 0:  # the cache was reset, to be used again
        delattr(cache, DROPPED_PROMPT)
        return None
    # Layers with a running state (linear attention, convolutions) hold no indices.
    numbers = [number for number, layer in enumerate(cache.layers) if hasattr(layer, "get_seq_length")]
    expected = prompt.sequence_lengths(len(cache.layers), full)
    lengths = tuple(int(cache.get_seq_length(layer)) for layer in numbers)
    if full < prompt.stop or lengths != tuple(expected[number] for number in numbers):
        raise PruningError(
            f"the cache must hold the whole pruned prompt of {prompt.stop} tokens, layers {prompt.layers} on "
            f"fewer: expected lengths {expected}, got {lengths}; pass the whole conversation without the cache"
        )
    return prompt


def full_length(cache: Any) -> int:
    """Count the tokens that a cache (or None) stands for, those too that were dropped before the first layer."""
    length = 0 if cache is None else int(cache.get_seq_length(0))
    prompt: DroppedPrompt | None = getattr(cache, DROPPED_PROMPT, None)
    return length + prompt.dropped(0) if length and prompt is not None else length


def sizes_in_cache(cache: Any, layer: int, num_queries: int) -> tuple[int, int, int]:
    """Size a layer's attention: (number of keys, cached tokens before the first key, cached tokens)."""
    if cache is None:
        return num_queries, 0, 0
    # The class's own method: the instance's may be replaced by the one below.
    num_keys, offset = type(cache).get_mask_sizes(cache, num_queries, layer)
    return num_keys, int(offset), int(cache.get_seq_length(layer))


@contextmanager
def sized_at_full_length(cache: Any, prompt: DroppedPrompt) -> Iterator[None]:
    """Let a cache tell mask sizes and its length as if nothing had been dropped from `prompt`; as before on exit."""

    def sizes(original: Callable[..., tuple[int, int]], query_length: int, layer_idx: int) -> tuple[int, int]:
        dropped = prompt.dropped(layer_idx) if layer_idx < len(cache.layers) else 0
        if dropped == 0:
            return original(query_length, layer_idx)
        return _fuller_sizes(cache.layers[layer_idx], query_length, dropped)

    def offset(original: Callable[..., Any], layer_idx: int = 0) -> Any:
        dropped = prompt.dropped(layer_idx) if layer_idx < len(cache.layers) else 0
        return original(layer_idx) + dropped

    def length(original: Callable[..., Any], layer_idx: int | None = None) -> Any:
        # Without a layer, models ask how many tokens have gone before.
        return original(0) + prompt.dropped(0) if layer_idx is None else original(layer_idx)

    with ExitStack() as stack:
        stack.enter_context(replaced(cache, "get_mask_sizes", sizes))
        stack.enter_context(replaced(cache, "get_query_offset", offset))
        if prompt.layers[0] == 0:
            stack.enter_context(replaced(cache, "get_seq_length", length))
        yield


def _fuller_sizes(layer: Any, query_length: int, dropped: int) -> tuple[int, int]:
    """Return the mask sizes of a cache's layer if it held `dropped` indices more."""
    fuller = copy.copy(layer)
    counters = [name for name in ("cumulative_length", "cumulative_length_int") if hasattr(layer, name)]
    for name in counters:
        setattr(fuller, name, getattr(layer, name) + dropped)
    length, offset = fuller.get_mask_sizes(query_length)
    return (length if counters else length + dropped), offset
