"""What decoder layers still hold of a prompt that lost tokens inside the language model; travels with its cache."""

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from divprune.errors import PruningError
from divprune.huggingface.gather import with_later_columns
from divprune.huggingface.prompt import PADDING

DROPPED_PROMPT = "__divprune_dropped_prompt__"
"""Name under which a `DroppedPrompt` hangs on the cache."""


@dataclass
class DroppedPrompt:
    """Which columns of a prompt (B, L) each decoder layer still holds.

    A *stage* is a run of layers that hold the same: stage 0 holds everything, stage s begins at `layers[s - 1]`.

    Attributes:
        layers: the layers at whose entrance tokens are dropped, ascending.
        sources: for each stage that has begun: (B, L') int64 columns of the original prompt, see
            `prompt.source_columns`; the first is 0, 1, ..., L - 1 for every row.
        ragged: for each of `sources`, whether some of its rows are padded.
    """

    layers: tuple[int, ...]
    sources: list[Tensor] = field(default_factory=list)
    ragged: list[bool] = field(default_factory=list)

    @classmethod
    def of(cls, input_ids: Tensor, layers: tuple[int, ...]) -> "DroppedPrompt":
        """The prompt `input_ids` (B, L), of which nothing is dropped yet."""
        batch_size, length = input_ids.shape
        everything = torch.arange(length, device=input_ids.device).expand(batch_size, -1)
        return cls(layers, [everything], [False])

    def add(self, source: Tensor) -> None:
        """Begins the next stage, which holds `source` (B, L')."""
        self.sources.append(source)
        self.ragged.append(bool((source == PADDING).any()))

    @property
    def is_decided(self) -> bool:
        """Whether every stage has begun."""
        return len(self.sources) > len(self.layers)

    @property
    def length(self) -> int:
        """L, columns of the original prompt."""
        return self.sources[0].shape[1]

    def stage_of(self, layer: int) -> int:
        """Number of a layer's stage."""
        return bisect_right(self.layers, layer)

    def copies(self, num_rows: int) -> int:
        """How many copies of each prompt (beams, samples) `num_rows` rows are."""
        batch_size = len(self.sources[0])
        if num_rows % batch_size:
            raise PruningError(
                f"past_key_values must hold the {batch_size} rows that were pruned, or copies of each, got {num_rows}"
            )
        return num_rows // batch_size

    def columns(self, stage: int, num_rows: int, num_columns: int) -> Tensor:
        """(num_rows, num_columns) the column of the full sequence that stands in each column of a stage."""
        source = self.sources[stage].repeat_interleave(self.copies(num_rows), dim=0)
        return with_later_columns(source, self.length, num_columns)

    def sequence_lengths(self, num_layers: int, length: int) -> tuple[int, ...]:
        """Columns that each layer holds of a full sequence of `length` columns, which begins with the prompt."""
        held = [source.shape[1] + length - self.length for source in self.sources]
        return tuple(held[self.stage_of(layer)] for layer in range(num_layers))

    def keep_mask(self, attention_mask: Tensor) -> Tensor:
        """(B, n) bool on the CPU: what the last layers still see of the attended columns of a full sequence."""
        mask = attention_mask.bool().cpu()
        source = self.sources[-1].cpu()
        kept = torch.zeros(len(source), self.length + 1, dtype=torch.bool)
        # A column more than there are, for padding to write into.
        kept.scatter_(-1, source.masked_fill(source == PADDING, self.length), True)
        mask[:, : self.length] &= kept[:, :-1].repeat_interleave(self.copies(len(mask)), dim=0)
        return mask


def dropped_prompt(cache: Any) -> DroppedPrompt | None:
    """What was dropped from the prompt that a cache begins with; None if the cache is empty or holds everything.

    Raises:
        PruningError: the cache was changed so that its layers no longer fit each other.
    """
    prompt: DroppedPrompt | None = getattr(cache, DROPPED_PROMPT, None)
    if prompt is None:
        return None
    full = int(cache.get_seq_length())
    if full == 0:  # the cache was reset, to be used again
        delattr(cache, DROPPED_PROMPT)
        return None
    expected = prompt.sequence_lengths(len(cache.layers), full)
    lengths = tuple(int(cache.get_seq_length(layer)) for layer in range(len(cache.layers)))
    if full < prompt.length or lengths != expected:
        raise PruningError(
            f"past_key_values must hold the whole pruned prompt of {prompt.length} tokens, layers {prompt.layers} on "
            f"fewer: expected lengths {expected}, got {lengths}; pass the whole conversation without past_key_values"
        )
    return prompt
