"""Models whose positions count tokens: kept tokens keep their numbers, as three equal coordinates of M-RoPE."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from divprune.methods.item_context import Modality
from divprune.vllm_plugin.mrope import AXES, PlacedModel, as_columns
from divprune.vllm_plugin.processor import budget_field


class PrunedCountingModel(PlacedModel):
    """Comes in front of a family's model whose positions count tokens."""

    supports_mrope: ClassVar[Literal[True]] = True
    """vLLM's name for: it is asked for the positions of a prompt, where its configuration says so."""

    def finished(
        self, modality: Modality, items: Sequence[Tensor], kept: Sequence[Tensor], kwargs: Mapping[str, Any]
    ) -> list[Tensor]:
        """Return the kept rows of each item, (k, d), or (k, d + 6) with their distance from the first placeholder."""
        found = super().finished(modality, items, kept, kwargs)
        if not self.has_places:
            return found
        pairs = zip(found, kept, strict=True)
        return [torch.cat([item, as_columns(rows.expand(AXES, -1), item)], dim=1) for item, rows in pairs]

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[Tensor, int]:
        """Return positions (3, L) of a pruned prompt, and what to add to the index of a token after it.

        Text stands where it stands in the whole prompt, every placeholder where its item's first one does.
        """
        positions, num_dropped = torch.arange(len(input_tokens)), 0
        for feature in sorted(mm_features, key=lambda feature: feature.mm_position.offset):
            place = feature.mm_position
            embedded = torch.arange(place.length) if place.is_embed is None else place.is_embed.nonzero().flatten()
            first, end = place.offset + int(embedded[0]), place.offset + int(embedded[-1]) + 1
            num_visual_tokens = int(feature.data[budget_field(feature.modality)].data[-1])
            positions[first:end] = positions[first].clone()
            positions[end:] += num_visual_tokens - len(embedded)
            num_dropped += num_visual_tokens - len(embedded)
        return positions.expand(AXES, -1).clone(), num_dropped

    def read_positions(self, positions: Tensor) -> Tensor:
        """Return what the language model reads of three equal coordinates (3, n): (n,), which plain RoPE takes."""
        return positions[0]
