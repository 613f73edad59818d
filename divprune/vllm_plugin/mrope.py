"""Positions: kept tokens stand where they stood, at their (frame, row, column) or number, and so does text after them.

vLLM wants the positions of a prompt when the request arrives, before the vision encoder has run and anything is chosen.
So all placeholders of an item first get the position of its first token, and the distance of each kept token from there
travels with it: as additional columns of the encoder's output, through the encoder cache, up to the step that reads it.
Thus it does not matter which part of a prompt comes from the prefix cache, or where chunks of it end.

The language model may run as a replayed CUDA graph, where no Python runs and tensors must stay where they are. So
`embed_input_ids`, which is never part of a graph, writes the distances into a buffer, and `forward` adds the buffer to
the positions in place and clears it.

Where positions count tokens, vLLM would number a pruned prompt anew, and can be told otherwise by M-RoPE alone. So such
a model gets three equal coordinates a token, and its language model reads the first: `PrunedCountingModel`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor
from vllm.config import VllmConfig

from divprune.errors import UnsupportedVersionError
from divprune.methods.grids import Grid
from divprune.methods.item_context import Modality
from divprune.vllm_plugin.contracts import refusal
from divprune.vllm_plugin.positions import num_positions
from divprune.vllm_plugin.pruned_model import PrunedModel

AXES = 3
# bfloat16 has whole numbers up to 256 only, so that a coordinate is written as two digits.
BASE = 256
NUM_COLUMNS = 2 * AXES


def as_columns(coordinates: Tensor, like: Tensor) -> Tensor:
    """Return coordinates (3, n) below 65536 as (n, 6) columns for `like` (n, d)."""
    digits = torch.cat([coordinates // BASE, coordinates % BASE])
    return digits.T.to(like.device, like.dtype)


def from_columns(columns: Tensor) -> Tensor:
    """Return the coordinates (3, n) int64 that `as_columns` wrote."""
    digits = columns.T.long()
    return digits[:AXES] * BASE + digits[AXES:]


def fields_of(modality: Modality, kwargs: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return what vLLM's rules for positions read of an item of a batch, as they read it: values are in `.data`."""
    names = (f"{modality}_grid_thw", "second_per_grid_ts", "timestamps")
    return {name: SimpleNamespace(data=kwargs[name][index]) for name in names if name in kwargs}


def require_angles(language_model: torch.nn.Module, num_positions: int) -> None:
    """Check that vLLM's tables of angles reach as far as the positions of a pruned prompt.

    Behind their end, an answer would be wrong or the engine would fall. That they reach so far is not a symbol that
    could be looked up, so it is measured on the model that was built.

    Args:
        language_model: The part that reads positions; its tables are called `cos_sin_cache`, one row a position.
        num_positions: How far they must reach.

    Raises:
        UnsupportedVersionError: They do not, or there are none of this name.
    """
    tables: list[Any] = [
        module.cos_sin_cache for module in language_model.modules() if hasattr(module, "cos_sin_cache")
    ]
    rows = min((len(table) for table in tables), default=0)
    if rows < num_positions:
        raise UnsupportedVersionError(
            refusal(
                [
                    f"tables of angles (cos_sin_cache) must have {num_positions} rows, found {rows} in {len(tables)} "
                    "tables"
                ]
            )
        )


class PlacedModel(PrunedModel):
    """Kept tokens carry their places through the encoder cache, and stand there when the language model reads them."""

    has_places: bool
    """Whether vLLM asks the model for positions; without, it numbers pruned prompts anew."""
    place_buffer: Tensor

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        """Build the model and the buffer."""
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.has_places = vllm_config.model_config.uses_mrope
        if self.has_places:
            require_angles(self.language_model, num_positions(vllm_config.model_config))
        size = (AXES, vllm_config.scheduler_config.max_num_batched_tokens)
        self.register_buffer("place_buffer", torch.zeros(size, dtype=torch.int64), persistent=False)

    def embed_input_ids(
        self,
        input_ids: Tensor,
        multimodal_embeddings: Sequence[Tensor] | None = None,
        *,
        is_multimodal: Tensor | None = None,
    ) -> Tensor:
        """Take the coordinates off the visual tokens and put them into the buffer."""
        if self.has_places and multimodal_embeddings is not None and len(multimodal_embeddings):
            columns = torch.cat([rows[:, -NUM_COLUMNS:] for rows in multimodal_embeddings])
            multimodal_embeddings = [rows[:, :-NUM_COLUMNS] for rows in multimodal_embeddings]
            where = cast(Tensor, is_multimodal).nonzero().squeeze(1).to(self.place_buffer.device, non_blocking=True)
            self.place_buffer[:, where] = from_columns(columns)
        return super().embed_input_ids(input_ids, multimodal_embeddings, is_multimodal=is_multimodal)

    def forward(self, input_ids: Tensor | None, positions: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Move the visual tokens of this step to their places, and run the language model."""
        if self.has_places:
            # Without control flow that depends on a request: these lines may be captured in a graph.
            places = self.place_buffer[:, : positions.shape[-1]]
            positions += places
            places.zero_()
            positions = self.read_positions(positions)
        return super().forward(input_ids, positions, *args, **kwargs)

    def read_positions(self, positions: Tensor) -> Tensor:
        """Return what the language model reads of the coordinates (3, n)."""
        return positions


class PrunedMRoPEModel(PlacedModel):
    """Comes in front of a family's model with M-RoPE positions."""

    def grids(self, modality: Modality, counts: Sequence[int], kwargs: Mapping[str, Any]) -> list[Grid | None]:
        """Return the grids; patches are merged before the LLM reads them."""
        merge = self.config.vision_config.spatial_merge_size
        return [(t, h // merge, w // merge) for t, h, w in kwargs[f"{modality}_grid_thw"].tolist()]

    def finished(
        self, modality: Modality, items: Sequence[Tensor], kept: Sequence[Tensor], kwargs: Mapping[str, Any]
    ) -> list[Tensor]:
        """Return the kept rows of each item (k, d + 6), with their coordinates after them."""
        return [
            self.placed(modality, item, rows, fields_of(modality, kwargs, index))
            for index, (item, rows) in enumerate(zip(items, kept, strict=True))
        ]

    def placed(self, modality: Modality, item: Tensor, rows: Tensor, data: Mapping[str, Any]) -> Tensor:
        """Return the kept rows of one item with their coordinates."""
        places = self.coordinates(modality, data, self.whole_item(modality, data, 0)).to(rows.device)[:, rows]
        return torch.cat([item[rows], as_columns(places, item)], dim=1)

    def coordinates(self, modality: Modality, data: Mapping[str, Any], tokens: list[int]) -> Tensor:
        """Return coordinates (3, n) of an item's part of the whole prompt (n,), by the family's own rule."""
        alone = SimpleNamespace(modality=modality, data=data, mm_position=SimpleNamespace(offset=0))
        positions: Tensor = super().get_mrope_input_positions(tokens, [alone])[0]
        return positions

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[Tensor, int]:
        """Return positions (3, L) of a pruned prompt, and what to add to the index of a token after it.

        Text stands where it stands in the whole prompt, every placeholder where its item begins.
        """
        features = sorted(mm_features, key=lambda feature: feature.mm_position.offset)
        tokens: list[int] = []
        # Index in the whole prompt of each token of the pruned one.
        gather_index: list[int] = []
        whole = []
        done = 0
        for feature in features:
            place = feature.mm_position
            gather_index += range(len(tokens), len(tokens) + place.offset - done)
            tokens += input_tokens[done : place.offset]
            gather_index += [len(tokens)] * place.length
            own = self.whole_item(feature.modality, feature.data, input_tokens[place.offset])
            whole.append(replace(feature, mm_position=replace(place, offset=len(tokens), length=len(own))))
            tokens += own
            done = place.offset + place.length
        gather_index += range(len(tokens), len(tokens) + len(input_tokens) - done)
        tokens += input_tokens[done:]
        positions, delta = super().get_mrope_input_positions(tokens, whole)
        return positions[:, gather_index], delta + len(tokens) - len(input_tokens)

    def whole_item(self, modality: Modality, data: Mapping[str, Any], first: int) -> list[int]:
        """Return an item's part of the whole prompt.

        Args:
            modality: What the item is.
            data: Its fields; their values are in `.data`.
            first: The first token of its part of the pruned prompt.
        """
        grid = data[f"{modality}_grid_thw"].data
        return [first] * (int(grid.prod()) // self.config.vision_config.spatial_merge_size**2)
