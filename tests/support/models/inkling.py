"""Tiny models that know the distance between tokens from learnt biases, and take no position ids."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.support.models.base import IMAGE, Case, Media, build_model, config_of, noise
from tests.support.models.sparse_attention import DENSE_FIRST, SIZES, TEXT
from tests.support.models.tiles import one_run


def inkling_mm_model() -> PreTrainedModel:
    text = config_of("InklingText")(
        **TEXT,
        head_dim=8,
        swa_num_attention_heads=4,
        swa_num_key_value_heads=2,
        swa_head_dim=8,
        sliding_window_size=20,
        d_rel=4,
        rel_extent=16,
        local_layer_ids=[0, 2],
        moe_intermediate_size=16,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_shared_experts=1,
        logits_mup_width_multiplier=1.0,
        **DENSE_FIRST,
    )
    vision = {"patch_size": 4, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
    audio = {"n_mel_bins": 4, "mel_vocab_size": 8}
    return build_model(
        config_of("Inkling")(
            text_config=text, vision_config=vision, audio_config=audio, image_token_id=IMAGE, audio_token_id=94
        )
    )


TEXT_2: dict[str, Any] = {
    **{name: value for name, value in TEXT.items() if name != "intermediate_size"},
    "head_dim": 8,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 2,
    "swa_head_dim": 8,
    "sliding_window_size": 20,
    "d_rel": 4,
    "rel_extent": 16,
    "layer_types": ["hybrid_sliding", "hybrid", "hybrid_sliding"],
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "unpadded_vocab_size": 99,
}
VISION_2 = {**SIZES, "patch_size": 2, "posemb_grid_size": 8, "projection_hidden_dim": 32, "text_hidden_size": 32}


def inkling2() -> PreTrainedModel:
    text = config_of("Inkling2Text")(**TEXT_2)
    return build_model(config_of("Inkling2")(text_config=text, vision_config=VISION_2, image_token_id=IMAGE))


def inkling2_loop() -> PreTrainedModel:
    """The second of three layers runs three times, each time with a cache of its own."""
    loop = {"n_layers_per_attn_res_block": 1, "loop_layer_index_start": 1, "loop_layer_index_end": 2}
    text = config_of("Inkling2LoopText")(**TEXT_2, **loop, loop_num_passes=3, loop_gate_rank=8)
    vision = {**VISION_2, "model_type": "inkling2_vision"}
    return build_model(config_of("Inkling2Loop")(text_config=text, vision_config=vision, image_token_id=IMAGE))


def folded_patches(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    """(patches, frames, height, width, 3), 12 patches a picture."""
    return {"pixel_values": noise(12 * sum(counts), 2, 4, 4, 3, seed=sum(counts))}


def twelve_each(model: PreTrainedModel, kind: str, inputs: Media, entries: Any) -> list[Tensor]:
    return list(torch.cat([entry.reshape(-1, entry.shape[-1]) for entry in entries]).split(12))


def merged_patches(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    """(tokens, height, width, 3): the grid counts what is left after four patches became one."""
    grids = torch.tensor([(1, 4, 6), (1, 6, 3), (1, 2, 5)][: sum(counts)])
    return {"pixel_values": noise(int(grids.prod(-1).sum()), 4, 4, 3, seed=len(grids)), "image_grid_thw": grids}


INKLING_CASES = (
    Case(
        "inkling_mm_model", inkling_mm_model, folded_patches, spell=one_run, items=twelve_each, positions=("compact",)
    ),
    Case("inkling2", inkling2, merged_patches, positions=("compact",)),
    Case("inkling2_loop", inkling2_loop, merged_patches, positions=("compact",)),
)
