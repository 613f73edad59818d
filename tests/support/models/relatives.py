"""Tiny models of families that are close relatives of others."""

from typing import Any

import torch
from torch import Tensor
from transformers import (
    Cohere2Config,
    Cohere2VisionConfig,
    DeepseekVLConfig,
    Glm4vMoeConfig,
    Glm46VConfig,
    GlmOcrConfig,
    Idefics2Config,
    Lfm2Config,
    Lfm2VlConfig,
    LightOnOcrConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen3_5MoeConfig,
    Qwen3Config,
    Qwen3VLMoeConfig,
    Siglip2VisionConfig,
)

from tests.support.models.base import (
    IMAGE,
    TEXT_SIZES,
    VIDEO,
    VOCABULARY,
    Case,
    Media,
    build_model,
    llama,
    mm_types,
    noise,
    siglip,
    square_media,
)
from tests.support.models.llava import pixtral_tower, ragged_media, with_breaks
from tests.support.models.qwen import (
    BOTH,
    ROPE,
    SPECIAL,
    TEXT,
    VISION,
    glm_types,
    grid_media,
    stretch_a_frame,
    timestamped,
    timestamped_images,
    with_small_logits,
)
from tests.support.models.tiles import flat_tiles, one_run, tiles_joined

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}


def qwen3_vl_moe() -> PreTrainedModel:
    vision = {
        **VISION, "depth": 3, "out_hidden_size": 32, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]
    }  # fmt: skip
    text = {**TEXT, **EXPERTS, "head_dim": 8, "rope_parameters": {**ROPE, "mrope_interleaved": True}}
    return build_model(Qwen3VLMoeConfig(vision_config=vision, text_config=text, **SPECIAL))


def qwen3_5_moe() -> PreTrainedModel:
    vision = {**VISION, "out_hidden_size": 32, "num_position_embeddings": 64}
    text = {
        **TEXT, **EXPERTS, "shared_expert_intermediate_size": 16, "head_dim": 16,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "rope_parameters": {**ROPE, "mrope_interleaved": True, "partial_rotary_factor": 0.5},
    }  # fmt: skip
    return with_small_logits(build_model(Qwen3_5MoeConfig(vision_config=vision, text_config=text, **SPECIAL)))


def glm(config: type[Any], **text: Any) -> PreTrainedModel:
    vision = {**VISION, "out_hidden_size": 32, "image_size": 16}
    rope = {"rope_parameters": {**ROPE, "partial_rotary_factor": 1.0}}
    return build_model(
        config(vision_config=vision, text_config={**TEXT, **rope, **text}, image_token_id=IMAGE, video_token_id=VIDEO)
    )


def glm4v_moe() -> PreTrainedModel:
    return glm(
        Glm4vMoeConfig, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, n_shared_experts=1,
        first_k_dense_replace=1,
    )  # fmt: skip


def glm46v() -> PreTrainedModel:
    vision = {**VISION, "out_hidden_size": 32, "image_size": 16, "model_type": "glm4v_vision"}
    text = {**TEXT, "rope_parameters": {**ROPE, "partial_rotary_factor": 1.0}, "model_type": "glm4v_text"}
    return build_model(Glm46VConfig(vision_config=vision, text_config=text, image_token_id=IMAGE, video_token_id=VIDEO))


def glm_ocr() -> PreTrainedModel:
    return glm(GlmOcrConfig, head_dim=8)


def cohere2_vision() -> PreTrainedModel:
    text = Cohere2Config(
        **TEXT_SIZES, **VOCABULARY, num_key_value_heads=2, sliding_window=20,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    )  # fmt: skip
    return build_model(
        Cohere2VisionConfig(
            vision_config=siglip(56), text_config=text, image_token_id=IMAGE, alignment_intermediate_size=64,
            tie_word_embeddings=False,
        )
    )  # fmt: skip


def deepseek_vl() -> PreTrainedModel:
    return build_model(
        DeepseekVLConfig(
            vision_config=siglip(42), text_config=llama(), image_token_id=IMAGE, tie_word_embeddings=False
        )
    )  # fmt: skip


def lighton_ocr() -> PreTrainedModel:
    text = Qwen3Config(**TEXT_SIZES, **VOCABULARY, num_key_value_heads=2, head_dim=8)
    return build_model(
        LightOnOcrConfig(
            vision_config=pixtral_tower(), text_config=text, image_token_id=IMAGE, tie_word_embeddings=False
        )
    )  # fmt: skip


def idefics2() -> PreTrainedModel:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    perceiver = {
        "hidden_size": 32, "resampler_n_latents": 16, "resampler_depth": 1, "resampler_n_heads": 4,
        "resampler_head_dim": 8, "num_key_value_heads": 2,
    }  # fmt: skip
    text = MistralConfig(**TEXT_SIZES, **VOCABULARY, num_key_value_heads=2, head_dim=8, sliding_window=None)
    return build_model(
        Idefics2Config(
            vision_config={**sizes, "image_size": 56, "patch_size": 7}, perceiver_config=perceiver, text_config=text,
            image_token_id=IMAGE,
        )
    )  # fmt: skip


def lfm2_vl() -> PreTrainedModel:
    vision = Siglip2VisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, patch_size=2,
        num_patches=64, vision_use_head=False,
    )  # fmt: skip
    text = Lfm2Config(
        **TEXT_SIZES, **VOCABULARY, num_key_value_heads=2, layer_types=["full_attention", "conv", "full_attention"]
    )
    return build_model(
        Lfm2VlConfig(
            vision_config=vision, text_config=text, image_token_id=IMAGE, projector_hidden_size=32,
            tie_word_embeddings=False,
        )
    )  # fmt: skip


def nested_media(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    """(rows, pictures, 3, height, width), filled up with black pictures."""
    pixels = torch.zeros(len(counts), max(counts), 3, 56, 56)
    for row, count in enumerate(counts):
        pixels[row, :count] = noise(count, 3, 56, 56, seed=row)
    return {"pixel_values": pixels, "pixel_attention_mask": torch.ones(*pixels.shape[:2], 56, 56, dtype=torch.int64)}


def sixteen_each(model: PreTrainedModel, kind: str, inputs: Media, entries: Any) -> list[Tensor]:
    return list(torch.cat([entry.reshape(-1, entry.shape[-1]) for entry in entries]).split(16))


def packed_media(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    shapes = torch.tensor([(6, 8), (8, 4), (4, 6)][: sum(counts)])
    mask = torch.arange(64)[None] < shapes.prod(-1, keepdim=True)
    return {
        "pixel_values": noise(len(shapes), 64, 12, seed=1), "spatial_shapes": shapes,
        "pixel_attention_mask": mask.long(),
    }  # fmt: skip


RELATIVE_CASES = (
    Case("cohere2_vision", cohere2_vision, flat_tiles, spell=one_run, items=tiles_joined),
    Case("deepseek_vl", deepseek_vl, square_media),
    Case("lighton_ocr", lighton_ocr, ragged_media, spell=with_breaks(14)),
    Case("idefics2", idefics2, nested_media, spell=one_run, items=sixteen_each),
    Case("lfm2_vl", lfm2_vl, packed_media, spell=one_run),
    *(
        Case(build.__name__, build, grid_media, BOTH, timestamped, types=mm_types, cells=stretch_a_frame)
        for build in (qwen3_vl_moe, qwen3_5_moe)
    ),
    *(
        Case(
            build.__name__, build, grid_media, BOTH, timestamped_images, types=glm_types, cells=stretch_a_frame,
            mixed=False,
        )
        for build in (glm4v_moe, glm46v, glm_ocr)
    ),
)  # fmt: skip
