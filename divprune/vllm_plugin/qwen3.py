"""Qwen3-VL: features for deeper layers, and videos with the timestamp of each frame in the text."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from vllm.config import VllmConfig
from vllm.model_executor.models import qwen3_vl

from divprune.methods.item_context import Modality
from divprune.vllm_plugin.mrope import PrunedMRoPEModel, as_columns
from divprune.vllm_plugin.positions import POSITIONS_FACTOR
from divprune.vllm_plugin.pruned_model import with_pruned_processor
from divprune.vllm_plugin.towers import MergedTower

FACTOR = "mrope_positions_factor"


@contextmanager
def room_for_dropped_tokens() -> Iterator[None]:
    """Have vLLM's tables of angles reach as far as a pruned prompt's positions.

    Unpruned, no position of this family is larger than the number of tokens before it, and vLLM makes room for no more.
    Versions without this function make that room for every model; `mrope.require_angles` sees what came of it.
    """
    before = getattr(qwen3_vl, FACTOR, None)
    if before is None:
        yield
        return
    setattr(qwen3_vl, FACTOR, lambda *_, **__: POSITIONS_FACTOR)
    try:
        yield
    finally:
        setattr(qwen3_vl, FACTOR, before)


@with_pruned_processor
class PrunedQwen3VL(MergedTower, PrunedMRoPEModel, qwen3_vl.Qwen3VLForConditionalGeneration):
    """Features for deeper layers stand in columns after a token's own, and are gathered with it."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        """Build the model with room for the positions of dropped tokens."""
        with room_for_dropped_tokens():
            super().__init__(vllm_config=vllm_config, prefix=prefix)

    def visual_tokens(self, item: Tensor) -> Tensor:
        return item[:, : self.visual_dim]

    def whole_item(self, modality: Modality, data: Mapping[str, Any], first: int) -> list[int]:
        """Return the tokens of a whole item; a video is its frames, each after its timestamp and between two marks."""
        if modality == "image":
            return super().whole_item(modality, data, first)
        steps, rows, columns = data["video_grid_thw"].data.tolist()
        merge = self.config.vision_config.spatial_merge_size
        details = qwen3_vl.Qwen3VLMultiModalProcessor.get_video_repl(
            tokens_per_frame=[rows * columns // merge**2] * steps,
            timestamps=data["timestamps"].data,
            tokenizer=self._tokenizer,
            vision_start_token_id=self.config.vision_start_token_id,
            vision_end_token_id=self.config.vision_end_token_id,
            video_token_id=self.config.video_token_id,
        )
        return list(details.full)

    def placed(self, modality: Modality, item: Tensor, rows: Tensor, data: Mapping[str, Any]) -> Tensor:
        """Place the kept tokens; the text between the frames of a video goes with them."""
        if modality == "image":
            return super().placed(modality, item, rows, data)
        whole = self.whole_item(modality, data, 0)
        ids = torch.tensor(whole, device=item.device)
        is_visual = ids == self.config.video_token_id
        stays = ~is_visual
        stays[is_visual.nonzero().squeeze(1)[rows]] = True
        embeddings = item.new_zeros(len(whole), item.shape[1])
        embeddings[~is_visual, : self.visual_dim] = self.language_model.embed_input_ids(ids[~is_visual]).to(item.dtype)
        embeddings[is_visual] = item
        places = self.coordinates(modality, data, whole).to(item.device)[:, stays]
        return torch.cat([embeddings[stays], as_columns(places, item)], dim=1)
