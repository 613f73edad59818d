"""Tiny models that take patches and their grid, as Qwen-VL does, and count positions."""

from typing import Any

import torch
from transformers import PreTrainedModel, Qwen2Config

from tests.support.models.base import IMAGE, TEXT_SIZES, VIDEO, VOCABULARY, Case, Media, build_model, config_of, noise
from tests.support.models.qwen import BOTH, VISION, grid_media, timestamped

SPECIAL = {"image_token_id": IMAGE, "video_token_id": VIDEO, "tie_word_embeddings": False}
TEXT: dict[str, Any] = {**TEXT_SIZES, **VOCABULARY, "num_key_value_heads": 2}
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SLIDING = {"sliding_window": 20, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}


def video_llama_3() -> PreTrainedModel:
    vision = config_of("VideoLlama3Vision")(**SIZES, patch_size=2)
    return build_model(config_of("VideoLlama3")(vision_config=vision, text_config=Qwen2Config(**TEXT), **SPECIAL))


def exaone4_5() -> PreTrainedModel:
    vision = config_of("Exaone4_5_Vision")(
        **VISION, window_size=16, out_hidden_size=32, fullatt_block_indexes=[1], num_key_value_heads=2
    )
    text = config_of("Exaone4")(**TEXT, **SLIDING)
    return build_model(config_of("Exaone4_5_")(vision_config=vision, text_config=text, **SPECIAL))


def hyperclovax_vision_v2() -> PreTrainedModel:
    vision = {**VISION, "model_type": "qwen2_5_vl_vision", "window_size": 16, "fullatt_block_indexes": [1]}
    text = config_of("HyperCLOVAX")(**TEXT)
    return build_model(
        config_of("HyperCLOVAXVisionV2")(vision_config={**vision, "out_hidden_size": 32}, text_config=text, **SPECIAL)
    )


def kimi_k25() -> PreTrainedModel:
    vision = config_of("Kimi_K25Vision")(**SIZES, patch_size=2, pos_emb_height=8, pos_emb_width=8)
    text = config_of("DeepseekV3")(
        **TEXT | {"num_key_value_heads": 4}, moe_intermediate_size=16, n_routed_experts=4, n_group=1, topk_group=1,
        num_experts_per_tok=2, n_shared_experts=1, first_k_dense_replace=1, q_lora_rank=16, kv_lora_rank=16,
        qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8,
    )  # fmt: skip
    return build_model(
        config_of("Kimi_K25")(vision_config=vision, text_config=text, projection_hidden_size=32, **SPECIAL)
    )


def lfm3_vl() -> PreTrainedModel:
    vision = config_of("Lfm3VlVision")(**SIZES, num_key_value_heads=2, patch_size=2)
    text = config_of("Lfm3")(
        **TEXT, head_dim=8, sliding_window=20, layer_types=["sliding_attention", "full_attention", "conv"]
    )
    return build_model(config_of("Lfm3Vl")(vision_config=vision, text_config=text, projector_hidden_size=32, **SPECIAL))


def muse_glimmer() -> PreTrainedModel:
    vision = config_of("MuseGlimmerVision")(
        **SIZES, patch_size=2, pos_emb_height=8, pos_emb_width=8, max_position_embeddings=64
    )
    text = config_of("MuseGlimmerText")(**TEXT, head_dim=8, **SLIDING, output_multiplier=0.5)
    return build_model(
        config_of("MuseGlimmer")(
            vision_config=vision, text_config=text, out_hidden_size=32 * 4, projector_hidden_size=32,
            image_token_id=IMAGE, video_token_id=VIDEO,
        )
    )  # fmt: skip


def flat_media(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    """Patches of single frames; a video is several of them, squeezed twice as much."""
    count = sum(counts)
    grids = {"image": [(1, 8, 12), (1, 12, 6), (1, 4, 10)], "video": [(3, 4, 8), (2, 8, 6), (4, 4, 6)]}[kind][:count]
    pixels = {"image": "pixel_values", "video": "pixel_values_videos"}[kind]
    return {
        pixels: noise(sum(t * h * w for t, h, w in grids), 12, seed=count),
        f"{kind}_grid_thw": torch.tensor(grids), f"{kind}_merge_sizes": torch.tensor([2] * count),
    }  # fmt: skip


def square_patches(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    """(patches, 3, height, width)."""
    media = flat_media(model, kind, counts)
    return {"pixel_values": media["pixel_values"].unflatten(-1, (3, 2, 2)), "image_grid_thw": media["image_grid_thw"]}


def doubled_frames(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    """A patch is one of two frames."""
    media = flat_media(model, kind, counts)
    del media[f"{kind}_merge_sizes"]
    return {name: value.repeat(1, 2) if "pixel" in name else value for name, value in media.items()}


PATCH_GRID_CASES = (
    Case("video_llama_3", video_llama_3, flat_media, BOTH, timestamped),
    Case("exaone4_5", exaone4_5, grid_media, BOTH, positions=("compact",)),
    Case("hyperclovax_vision_v2", hyperclovax_vision_v2, grid_media, BOTH, positions=("compact",)),
    Case("kimi_k25", kimi_k25, square_patches),
    Case("lfm3_vl", lfm3_vl, grid_media, BOTH, timestamped),
    Case("muse_glimmer", muse_glimmer, doubled_frames, BOTH, timestamped),
)
